/** What is known of one token: its numbers, and what else the model might have said. */
import { html, nothing, type TemplateResult } from 'lit-html'
import type { Answer } from './api.ts'
import { numberText, quotedToken, shareText } from './format.ts'
import { problemView } from './problem-view.ts'
import type { Alternatives, Token } from './shapes.ts'

/** Null while they are on their way. */
export type AlternativesAnswer = Answer<Alternatives> | null

export function tokenDetail(token: Token | null, answer: AlternativesAnswer): TemplateResult {
  if (token === null)
    return html`<p class="nothing">Point at a token, or move with the arrow keys.</p>`
  const entries: readonly (readonly [string, string])[] = [
    ['Token id', token.id === null ? '–' : String(token.id)],
    ['Phase', token.phase === 'prefill' ? 'prompt' : 'generated'],
    ['Confidence', shareText(token.confidence)],
    ['Entropy', withUnit(token.entropy, 'nat')],
    ['Surprisal', withUnit(token.surprisal, 'nat')],
    ['Margin', withUnit(token.margin, 'logits')],
  ]
  return html`<h2>Position ${token.position} <span class="token-name">${quotedToken(token)}</span></h2>
    <dl>${entries.map(([name, text]) => html`<div><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>
    <h3>Top alternatives</h3>
    ${token.has_alternatives ? alternatives(token, answer) : html`<p class="nothing">The logits that this token was drawn from are not stored.</p>`}`
}

/** For the live region. */
export function tokenSentence(token: Token): string {
  const numbers = [
    token.entropy === null ? [] : `entropy ${withUnit(token.entropy, 'nat')}`,
    token.surprisal === null ? [] : `surprisal ${withUnit(token.surprisal, 'nat')}`,
    token.confidence === null ? [] : `confidence ${shareText(token.confidence)}`,
  ].flat()
  const values = numbers.length === 0 ? 'nothing measured' : numbers.join(', ')
  return `Position ${token.position}, ${quotedToken(token)}: ${values}`
}

function withUnit(value: number | null, unit: string): string {
  return value === null ? '–' : `${numberText(value)} ${unit}`
}

function alternatives(token: Token, answer: AlternativesAnswer): TemplateResult | typeof nothing {
  if (answer === null) return html`<p class="waiting">Reading logits …</p>`
  if (answer.status === 'problem') return problemView(answer.problem)
  if (answer.status === 'aborted') return nothing
  const { alternatives: all, chosen_rank: rank } = answer.value
  const shown = all.some((one) => one.id === token.id)
  return html`<table class="alternatives">
    <thead><tr><th scope="col">Token</th><th scope="col" class="number">Probability</th><th scope="col" class="number">Logit</th></tr></thead>
    <tbody>${all.map(
      (one) => html`<tr class=${one.id === token.id ? 'chosen' : ''}>
        <td><span class="piece">${quotedToken({ ...one, position: token.position })}</span>${
          one.id === token.id ? html` <small>chosen</small>` : nothing
        }</td>
        <td class="number"><span class="probability" .style=${`--share: ${one.probability}`}>${shareText(one.probability)}</span></td>
        <td class="number">${numberText(one.logit)}</td>
      </tr>`,
    )}</tbody>
  </table>
  ${shown || rank === null ? nothing : html`<p>The chosen token is number ${(rank + 1).toLocaleString('en')} by probability.</p>`}`
}
