/** The page that searches: stored requests, newest first, by id, model, verdict and time. */
import { html, nothing, render, type TemplateResult } from 'lit-html'
import { repeat } from 'lit-html/directives/repeat.js'
import { verdicts } from '../../collector/records.ts'
import { hrefOf, type Route, type RouteValues, routeOfText, withValues } from './address.ts'
import { announce } from './announce.ts'
import type { Problem } from './api.ts'
import { badge } from './badge.ts'
import { bytesText, count, durationText, timeText } from './format.ts'
import { limits } from './limits.ts'
import { problemView, waitingView } from './problem-view.ts'
import type { RequestEntry, TraceList } from './shapes.ts'
import type { Context, View } from './view.ts'

const times: readonly (readonly [string, string])[] = [
  ['', 'any time'],
  ['15m', 'last 15 minutes'],
  ['1h', 'last hour'],
  ['24h', 'last 24 hours'],
  ['7d', 'last 7 days'],
]

export function createSearchView(host: HTMLElement, { api, navigation }: Context): View {
  let route: Route = { traceId: null, values: {} }
  let list: TraceList | null = null
  let problem: Problem | null = null
  let asking = new AbortController()
  /** Names of models of the requests listed so far. */
  const models = new Set<string>()
  let namesAsked = false

  async function load(): Promise<void> {
    asking.abort()
    asking = new AbortController()
    list = null
    problem = null
    draw()
    const query = { ...route.values, limit: limits.tracesPerPage }
    const answer = await api.get<TraceList>('/v1/traces', query, asking.signal)
    if (answer.status === 'aborted') return
    if (answer.status === 'problem') problem = answer.problem
    else list = answer.value
    if (list !== null) noteModels(list)
    draw()
    if (list !== null && route.values.model !== undefined) void askNames(asking.signal)
    if (list !== null) announce(count(list.traces.length, 'request'))
  }

  function noteModels({ traces }: TraceList): void {
    for (const { model } of traces) if (models.size < limits.modelNames) models.add(model)
  }

  /** A list that is filtered by model names no others: the newest requests do. */
  async function askNames(signal: AbortSignal): Promise<void> {
    if (namesAsked) return
    namesAsked = true
    const query = { limit: limits.tracesPerPage }
    const answer = await api.get<TraceList>('/v1/traces', query, signal)
    if (answer.status !== 'success') {
      namesAsked = false
      return
    }
    noteModels(answer.value)
    draw()
  }

  const submit = (event: Event): void => {
    event.preventDefault()
    const form = host.querySelector('form')
    if (form === null) return
    const values: Record<string, string> = {}
    for (const [name, value] of new FormData(form)) {
      if (typeof value === 'string' && value.trim() !== '') values[name] = value.trim()
    }
    if (values.model !== undefined) values.model = wholeModel(values.model, models)
    const pasted = routeOfText(values.q ?? '')
    // A choice of verdict or time narrows the list; only who asks for an id wants to be there.
    const opens = event.type === 'submit' && pasted.traceId !== null
    const next: Route = opens ? pasted : { traceId: null, values: values as RouteValues }
    if (hrefOf(navigation.base, next) === hrefOf(navigation.base, route)) void load()
    else navigation.go(next)
  }

  function draw(): void {
    document.title = 'Traces · ring2 explorer'
    render(
      html`<h1>Traces</h1>
        ${searchForm(route.values, submit, [...models].sort())}
        ${problem === null ? nothing : problemView(problem, () => void load())}
        ${list === null ? (problem === null ? waitingView('traces') : nothing) : results(list)}`,
      host,
    )
  }

  function results({ traces, next_cursor }: TraceList): TemplateResult {
    const older = next_cursor === null ? null : withValues(route, { cursor: next_cursor })
    const { cursor, ...others } = route.values
    const newest = cursor === undefined ? null : { ...route, values: others }
    const link = (to: Route | null, text: string) =>
      to === null ? nothing : html`<a href=${hrefOf(navigation.base, to)} data-own>${text}</a>`
    if (traces.length === 0) {
      const filtered = Object.keys(others).length > 0
      return filtered
        ? html`<p class="nothing">No stored request fits the filters. ${link({ traceId: null, values: {} }, 'Show all requests')}</p>
            ${modelHint(others.model)}`
        : html`<p class="nothing">${cursor === undefined ? 'No request is stored yet.' : 'No older request is stored.'}
            ${link(newest, 'Newest')} Requests appear here once the exporter has stored them.</p>`
    }
    return html`<div class="wide"><table class="traces">
      <caption class="unseen">Stored requests, newest first</caption>
      <thead><tr>
        <th scope="col">Trace</th><th scope="col">Request</th><th scope="col">Model</th>
        <th scope="col">Verdict</th><th scope="col">Capture</th><th scope="col" class="number">Tokens</th>
        <th scope="col" class="number">Stored</th><th scope="col">Started</th><th scope="col" class="number">Took</th>
      </tr></thead>
      <tbody>${repeat(traces, keyOf, (one) => row(one, navigation.base))}</tbody>
    </table></div>
    <nav class="pages" aria-label="Pages of traces">${link(newest, '← Newest')} ${link(older, 'Older →')}</nav>`
  }

  /** Models are found by their whole name: those of which this is a part are one click away. */
  function modelHint(model: string | undefined): TemplateResult | typeof nothing {
    if (model === undefined) return nothing
    const like = [...models].filter((name) => name !== model && holds(name, model))
    if (like.length === 0) return nothing
    const to = (name: string) =>
      hrefOf(navigation.base, withValues(route, { model: name, cursor: '' }))
    return html`<p>Models are found by their whole name. Did you mean
      ${like.map((name) => html`<a href=${to(name)} data-own>${name}</a> `)}?</p>`
  }

  return {
    show(next) {
      route = next
      void load()
    },
    close: () => asking.abort(),
  }
}

function holds(name: string, part: string): boolean {
  return name.toLowerCase().includes(part.toLowerCase())
}

/** A part of just one known name stands for it; the API finds models by their whole name alone. */
function wholeModel(text: string, known: ReadonlySet<string>): string {
  const like = [...known].filter((name) => holds(name, text))
  const [only] = like
  return known.has(text) || only === undefined || like.length > 1 ? text : only
}

function keyOf(one: RequestEntry): string {
  return JSON.stringify([one.trace_id, one.request_id, one.producer])
}

function row(one: RequestEntry, base: string): TemplateResult {
  const traceId = one.caller_trace_id ?? one.trace_id
  const values = { request: one.request_id, producer: one.producer }
  const generated = (one.tokens ?? 0) - (one.prompt_tokens ?? 0)
  return html`<tr>
    <td><a class="id" href=${hrefOf(base, { traceId, values })} data-own>${traceId}</a></td>
    <td class="name" title=${one.request_id}>${one.request_id}</td>
    <td class="name" title=${one.model}>${one.model}</td>
    <td>${badge(one.verdict)}</td>
    <td>${badge(one.completeness)}</td>
    <td class="number">${one.tokens === null ? '–' : `${one.prompt_tokens?.toLocaleString('en') ?? '?'} + ${generated.toLocaleString('en')}`}</td>
    <td class="number">${bytesText(one.bytes_stored)}</td>
    <td title=${one.started_at}><time datetime=${one.started_at}>${timeText(one.started_at)}</time></td>
    <td class="number">${durationText(one.started_at, one.ended_at)}</td>
  </tr>`
}

function searchForm(
  values: RouteValues,
  submit: (event: Event) => void,
  models: readonly string[],
): TemplateResult {
  const option = (value: string, text: string, chosen: string | undefined) =>
    html`<option value=${value} .selected=${value === (chosen ?? '')}>${text}</option>`
  const since = values.since
  const known = since === undefined || times.some(([value]) => value === since)
  return html`<form class="search" role="search" aria-label="Search traces" @submit=${submit}>
    <label class="grow">Trace id or request id
      <input type="search" name="q" .value=${values.q ?? ''} spellcheck="false" autocomplete="off"
        placeholder="Beginning of a trace id, or part of a request id">
    </label>
    <label>Model
      <input type="search" name="model" .value=${values.model ?? ''} spellcheck="false" autocomplete="off"
        placeholder="Name, or a part of it" list="models">
      <datalist id="models">${models.map((name) => html`<option value=${name}></option>`)}</datalist>
    </label>
    <label>Verdict
      <select name="verdict" @change=${submit}>
        ${option('', 'any', values.verdict)}
        ${verdicts.map((verdict) => option(verdict, verdict.replaceAll('_', ' '), values.verdict))}
      </select>
    </label>
    <label>Started
      <select name="since" @change=${submit}>
        ${times.map(([value, text]) => option(value, text, since))}
        ${known ? nothing : option(since, `since ${since}`, since)}
      </select>
    </label>
    <button type="submit" class="main">Search</button>
  </form>`
}
