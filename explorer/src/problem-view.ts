/** An error as the exporter says it: what, the code, expected, actual, and what to do. */
import { html, nothing, type TemplateResult } from 'lit-html'
import type { Problem } from './api.ts'

export function problemView(problem: Problem, retry: (() => void) | null = null): TemplateResult {
  return html`<section class="problem" role="alert">
    <h2>${problem.title}</h2>
    <dl>
      <dt>Code</dt>
      <dd><code>${problem.code}</code>${problem.status === 0 ? nothing : ` (${problem.status})`}</dd>
      <dt>Expected</dt>
      <dd>${problem.expected}</dd>
      <dt>Actual</dt>
      <dd>${problem.actual}</dd>
      <dt>What to do</dt>
      <dd>${problem.action}</dd>
    </dl>
    ${retry === null ? nothing : html`<button type="button" @click=${retry}>Try again</button>`}
  </section>`
}

export function waitingView(what: string): TemplateResult {
  return html`<p class="waiting" role="status">Reading ${what} …</p>`
}
