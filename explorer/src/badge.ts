/** Verdict and completeness as a coloured word; the word says it, the colour only helps. */
import { html, type TemplateResult } from 'lit-html'

const tones: Readonly<Record<string, string>> = {
  ok: 'good',
  complete: 'good',
  unknown: 'open',
  incomplete: 'weak',
  high_entropy: 'weak',
  low_entropy: 'weak',
  looping: 'bad',
  collapsed: 'bad',
  nonfinite: 'bad',
}

export function badge(word: string): TemplateResult {
  return html`<span class="badge ${tones[word] ?? 'open'}">${word.replaceAll('_', ' ')}</span>`
}
