/**
 * One trace: which requests it has, what was found of the chosen one, and the panels that show its
 * tokens, norms, attention, and commands. Panels draw themselves and live as long as their request.
 */
import { html, nothing, render, type TemplateResult } from 'lit-html'
import { hrefOf, type Route } from './address.ts'
import type { Problem } from './api.ts'
import { createAttentionView } from './attention-view.ts'
import { createCommandsView } from './commands-view.ts'
import { bytesText, count, durationText, timeText } from './format.ts'
import { createNormsView } from './norms-view.ts'
import type { PanelContext } from './panel-context.ts'
import { problemView, waitingView } from './problem-view.ts'
import type { Trace, TracedRequest } from './shapes.ts'
import { createTokenSource, type TokenSource } from './token-source.ts'
import { createTokensView } from './tokens-view.ts'
import { verdictView } from './verdict-view.ts'
import type { Context, View } from './view.ts'
import { mendValues, type PanelName, panelNames, panelOf } from './wrong-parts.ts'

const panels = {
  tokens: { title: 'Tokens', create: createTokensView },
  norms: { title: 'Norms', create: createNormsView },
  attention: { title: 'Attention', create: createAttentionView },
  commands: { title: 'Commands', create: createCommandsView },
} as const satisfies Record<PanelName, unknown>

export function createTraceView(host: HTMLElement, context: Context): View {
  const { api, navigation } = context
  const head = host.appendChild(document.createElement('div'))
  const body = host.appendChild(document.createElement('div'))
  const asking = new AbortController()
  let route: Route = { traceId: null, values: {} }
  let trace: Trace | null = null
  let problem: Problem | null = null
  let loading = false
  /** What the address named and is not there. */
  let wrong: readonly string[] = []
  let panel: { readonly key: string; readonly view: View } | null = null
  let source: { readonly request: TracedRequest; readonly tokens: TokenSource } | null = null

  async function load(): Promise<void> {
    loading = true
    problem = null
    draw()
    const path = `/v1/traces/${encodeURIComponent(route.traceId ?? '')}`
    const answer = await api.get<Trace>(path, {}, asking.signal)
    loading = false
    if (answer.status === 'aborted') return
    if (answer.status === 'problem') problem = answer.problem
    else trace = answer.value
    draw()
  }

  function draw(): void {
    const request = trace === null ? null : chosen(trace, route)
    if (request !== null) mend(request)
    document.title = `${(route.traceId ?? '').slice(0, 12)} · ring2 explorer`
    render(
      html`<p class="crumbs"><a href=${hrefOf(navigation.base, { traceId: null, values: {} })} data-own>Traces</a></p>
        <h1 class="id">${route.traceId}</h1>
        ${problem === null ? nothing : problemView(problem, () => void load())}
        ${loading ? waitingView('the trace') : nothing}
        ${trace === null || request === null ? nothing : overview(trace, request)}`,
      head,
    )
    if (request === null) dropPanel()
    else drawPanel(request)
  }

  /** Nothing else is passed off as what an address names: the page says so, and the address follows. */
  function mend(request: TracedRequest): void {
    const mended = mendValues(route.values, request)
    if (mended.wrong.length === 0) return
    wrong = mended.wrong
    navigation.mend(mended.values)
    route = navigation.route()
  }

  function dropPanel(): void {
    panel?.view.close()
    panel = null
    body.replaceChildren()
  }

  function drawPanel(request: TracedRequest): void {
    const name = panelOf(route.values)
    const key = JSON.stringify([name, request.request_id, request.producer])
    if (panel?.key !== key) {
      dropPanel()
      const traceId = route.traceId ?? ''
      if (source?.request !== request) {
        source = { request, tokens: createTokenSource(api, traceId, request) }
      }
      const element = body.appendChild(document.createElement('section'))
      element.className = 'panel'
      element.setAttribute('aria-labelledby', `tab-${name}`)
      const inside: PanelContext = { ...context, traceId, request, tokens: source.tokens }
      panel = { key, view: panels[name].create(element, inside) }
    }
    panel.view.show(route)
  }

  function overview(all: Trace, request: TracedRequest): TemplateResult {
    return html`${wrongParts()} ${requestChoice(all, request)} ${facts(request)} ${verdictView(request)}
      <nav class="tabs" aria-label="Views of the request">
        ${panelNames.map((name) => tab(name))}
      </nav>`
  }

  function wrongParts(): TemplateResult | typeof nothing {
    if (wrong.length === 0) return nothing
    return html`<div class="notes" role="status">${wrong.map((text) => html`<p>${text}</p>`)}</div>`
  }

  function tab(name: PanelName): TemplateResult {
    const { request, producer } = route.values
    const kept = { ...(request ? { request } : {}), ...(producer ? { producer } : {}) }
    const here = name === panelOf(route.values)
    const to: Route = { ...route, values: here ? route.values : { ...kept, tab: name } }
    return html`<a id=${`tab-${name}`} href=${hrefOf(navigation.base, to)} data-own
      aria-current=${here ? 'page' : 'false'}>${panels[name].title}</a>`
  }

  function requestChoice(all: Trace, request: TracedRequest): TemplateResult | typeof nothing {
    if (all.requests.length < 2) return nothing
    const choose = (event: Event): void => {
      if (!(event.target instanceof HTMLSelectElement)) return
      const next = all.requests[Number(event.target.value)]
      if (next === undefined) return
      const values = {
        request: next.request_id,
        producer: next.producer,
        ...(route.values.tab === undefined ? {} : { tab: route.values.tab }),
      }
      navigation.go({ ...route, values })
    }
    return html`<label class="request">${count(all.requests.length, 'request')} of this trace
      <select name="request" @change=${choose}>
        ${all.requests.map(
          (one, index) => html`<option value=${index} .selected=${one === request}>
            ${one.request_id} · ${one.model} · ${one.verdict}</option>`,
        )}
      </select></label>`
  }

  return {
    show(next) {
      route = next
      wrong = []
      if (trace === null && !loading) void load()
      else draw()
    },
    close() {
      asking.abort()
      dropPanel()
    },
  }
}

/** The request that the address names, else the first. */
function chosen(trace: Trace, { values }: Route): TracedRequest | null {
  const fits = (one: TracedRequest): boolean =>
    (values.request === undefined || one.request_id === values.request) &&
    (values.producer === undefined || one.producer === values.producer)
  return trace.requests.find(fits) ?? trace.requests[0] ?? null
}

function facts(request: TracedRequest): TemplateResult {
  const { tokens, prompt_tokens: prompt } = request
  const entries: readonly (readonly [string, string, string?])[] = [
    ['Request', request.request_id],
    [
      'Model',
      `${request.model}${request.model_revision === '' ? '' : ` @ ${request.model_revision}`}`,
    ],
    ['Engine', request.engine],
    [
      'Tokens',
      tokens === null ? '–' : tokensText(tokens, prompt),
      'Tokens that went through the model. The last token of an answer is never fed back, so a ' +
        'chat program may print one more.',
    ],
    ['Stored', `${count(request.tensors_stored, 'tensor')}, ${bytesText(request.bytes_stored)}`],
    ['Started', timeText(request.started_at), request.started_at],
    ['Took', durationText(request.started_at, request.ended_at)],
    ['Producer', `${request.producer} on ${request.host}`],
  ]
  return html`<dl class="facts">
    ${entries.map(
      ([name, text, title]) =>
        html`<div><dt>${name}</dt><dd title=${title ?? text}>${text}</dd></div>`,
    )}
  </dl>`
}

function tokensText(tokens: number, prompt: number | null): string {
  const text = (value: number): string => value.toLocaleString('en')
  return `${prompt === null ? '?' : text(prompt)} prompt + ${text(tokens - (prompt ?? 0))} generated`
}
