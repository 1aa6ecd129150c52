/** What was found of a request: verdict, the findings behind it, what evidence is missing, completeness. */
import { html, nothing, type TemplateResult } from 'lit-html'
import { findingText } from '../../exporter/finding-text.ts'
import { badge } from './badge.ts'
import { count } from './format.ts'
import { removedOf } from './held.ts'
import type { RequestDetails, TracedRequest } from './shapes.ts'

export function verdictView(request: TracedRequest): TemplateResult {
  const { details } = request
  return html`<section class="verdict" aria-label="Verdict and completeness">
    <div>
      <h2>Verdict ${badge(request.verdict)}</h2>
      ${details === null ? html`<p>The request has not ended: no rule has judged it yet.</p>` : reasons(request)}
    </div>
    <div>
      <h2>Capture ${badge(request.completeness)}</h2>
      ${details === null ? html`<p>Known when the request has ended.</p>` : capture(request, details.completeness)}
    </div>
  </section>`
}

function reasons({ verdict, details }: TracedRequest): TemplateResult | typeof nothing {
  if (details === null) return nothing
  const bounds = details.baseline === 'calibrated' ? 'learnt bounds' : 'built-in bounds'
  const { findings, missing_evidence: missing } = details
  if (findings.length === 0 && missing.length === 0) {
    return html`<p>No rule was broken and no evidence is missing, by the ${bounds}.</p>`
  }
  return html`
    ${
      findings.length === 0
        ? html`<p>No rule was broken by what was captured, by the ${bounds}.</p>`
        : html`<ul class="findings" aria-label="Findings">
            ${findings.map((one) => html`<li>${findingText(one)}</li>`)}
          </ul>`
    }
    ${
      missing.length === 0
        ? nothing
        : html`<p>${verdict === 'unknown' ? 'Not called ok, because evidence is missing' : 'Evidence is missing'}:</p>
            <ul aria-label="Missing evidence">${missing.map((text) => html`<li>${text}</li>`)}</ul>`
    }`
}

function capture(
  request: TracedRequest,
  { expected, seen, reasons: why }: RequestDetails['completeness'],
): TemplateResult {
  const removed = removedOf(request)
  return html`<p>${seen.toLocaleString('en')} of ${count(expected, 'expected tensor')} came.</p>
    ${
      removed === 0
        ? nothing
        : html`<p>That is as captured: ${removed.toLocaleString('en')} of them ${removed === 1 ? 'is' : 'are'} no longer stored.</p>`
    }
    ${
      why.length === 0
        ? nothing
        : html`<ul aria-label="Reasons">${why.map((text) => html`<li>${text}</li>`)}</ul>`
    }`
}
