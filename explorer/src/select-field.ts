/** A labelled choice among texts. */
import { html, type TemplateResult } from 'lit-html'

export function selectField(
  label: string,
  name: string,
  all: readonly string[],
  chosen: string,
  onChoice: (value: string) => void,
): TemplateResult {
  const change = (event: Event): void => {
    if (event.target instanceof HTMLSelectElement) onChoice(event.target.value)
  }
  return html`<label class="field">${label}
    <select name=${name} @change=${change}>
      ${all.map((one) => html`<option value=${one} .selected=${one === chosen}>${one}</option>`)}
    </select>
  </label>`
}
