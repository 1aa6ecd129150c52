/** Go templates as text for people. */

/** `{{ $labels.ring2_segment }}` becomes `<ring2_segment>`, a value `<value>`. */
export function withoutTemplates(text: string): string {
  return text
    .replaceAll(/\{\{ \$labels\.(\w+)[^}]*\}\}/g, '`<$1>`')
    .replaceAll(/\{\{ \$value[^}]*\}\}/g, '`<value>`')
}
