/**
 * The tokens as text, each on the colour of its entropy or surprisal. One token is chosen (by click or
 * arrow keys, kept in the address); pointing at another one shows that instead, for as long.
 */
import { html, nothing, render, type TemplateResult } from 'lit-html'
import { type Route, type RouteValues, withValues } from './address.ts'
import { announce } from './announce.ts'
import type { Answer, Problem } from './api.ts'
import { type ColourMap, cssColour, textColours } from './colour.ts'
import { count, tokenText } from './format.ts'
import { removedOf } from './held.ts'
import { legendView } from './legend.ts'
import { limits } from './limits.ts'
import type { PanelContext } from './panel-context.ts'
import { problemView, waitingView } from './problem-view.ts'
import { createScale, rangeOf, type Scale } from './scale.ts'
import type { Alternatives, Token, TokenPage, TracedRequest } from './shapes.ts'
import { onTheme, theme } from './theme.ts'
import { tokenDetail, tokenSentence } from './token-detail.ts'
import { nextToken } from './token-keys.ts'
import type { View } from './view.ts'

const measures = {
  entropy: 'Entropy of the choice (nat)',
  surprisal: 'Surprisal of the token (nat)',
} as const

type Measure = keyof typeof measures

export function createTokensView(host: HTMLElement, context: PanelContext): View {
  const { api, navigation, request, tokens, traceId } = context
  const text = host.appendChild(document.createElement('div'))
  const detail = host.appendChild(document.createElement('aside'))
  text.className = 'token-text'
  detail.className = 'detail'
  detail.setAttribute('aria-label', 'The token')
  host.classList.add('beside')
  let route: Route = { traceId, values: {} }
  let page: TokenPage | null = null
  let problem: Problem | null = null
  let start = -1
  let selected = -1
  let shown = -1
  const asked = new Map<number, Answer<Alternatives> | null>()
  let timer: ReturnType<typeof setTimeout> | null = null
  const asking = new AbortController()

  async function load(wanted: number): Promise<void> {
    start = wanted
    page = null
    problem = null
    draw()
    const answer = await tokens.page(wanted)
    if (asking.signal.aborted || start !== wanted) return
    if (answer.status === 'problem') problem = answer.problem
    if (answer.status === 'success') page = answer.value
    // An address may name a position that the request does not have.
    if (page?.tokens.length === 0 && wanted > 0) {
      await load(0)
      return
    }
    draw()
    selectNamed()
  }

  function draw(): void {
    render(page === null ? instead() : textView(page), text)
    drawDetail()
  }

  function instead(): TemplateResult {
    if (problem === null) return waitingView('the tokens')
    return problemView(problem, () => void load(start))
  }

  function textView(shownPage: TokenPage): TemplateResult {
    const measure = measureOf(route.values)
    const range = rangeOf(shownPage.tokens.map((token) => token[measure]))
    const scale = createScale('linear', 0, Math.max(1, range?.[1] ?? 0))
    const colours = textColours(theme())
    const paint = { measure, scale, colours }
    const prompt = shownPage.tokens.filter((token) => token.phase === 'prefill')
    const answer = shownPage.tokens.filter((token) => token.phase === 'decode')
    return html`<div class="controls">
        <fieldset><legend>Colour by</legend>
          ${(Object.keys(measures) as Measure[]).map(
            (
              name,
            ) => html`<label><input type="radio" name="colour" value=${name} .checked=${name === measure}
              @change=${() => navigation.go(withValues(route, { colour: name }))}> ${name}</label>`,
          )}
        </fieldset>
        ${range === null ? nothing : legendView(measures[measure], scale, colours, 'not stored or not measured')}
      </div>
      ${missingNotes(shownPage, request)}
      <div class="tokens" role="listbox" aria-label="Tokens" aria-orientation="horizontal"
        @click=${onClick} @keydown=${onKey} @pointerover=${onPoint} @pointerleave=${() => preview(selected)}>
        ${group('Prompt', prompt, paint)} ${group('Generated', answer, paint)}
      </div>
      ${pager(shownPage)}`
  }

  function pager({ total, tokens: all }: TokenPage): TemplateResult | typeof nothing {
    if (total <= limits.tokensPerPage) return nothing
    const to = (position: number) => navigation.go(withValues(route, { token: String(position) }))
    const end = start + all.length
    return html`<nav class="pages" aria-label="Pages of tokens">
      <button type="button" ?disabled=${start === 0} @click=${() => to(start - limits.tokensPerPage)}>← Before</button>
      <span>Tokens ${start.toLocaleString('en')} to ${(end - 1).toLocaleString('en')} of ${total.toLocaleString('en')}</span>
      <button type="button" ?disabled=${end >= total} @click=${() => to(end)}>After →</button>
    </nav>`
  }

  function drawDetail(): void {
    const token = tokenAt(shown)
    render(tokenDetail(token, token === null ? null : (asked.get(token.position) ?? null)), detail)
  }

  const tokenAt = (position: number): Token | null =>
    page?.tokens[position - (page?.start ?? 0)] ?? null
  const elementAt = (position: number) =>
    text.querySelector<HTMLElement>(`[data-position="${position}"]`)

  /** Moves the one tab stop; the text itself is not drawn again. */
  function select(position: number): void {
    if (tokenAt(position) === null) return
    for (const old of text.querySelectorAll('[aria-selected="true"], [tabindex="0"]')) {
      old.setAttribute('aria-selected', 'false')
      old.setAttribute('tabindex', '-1')
    }
    const element = elementAt(position)
    element?.setAttribute('aria-selected', 'true')
    element?.setAttribute('tabindex', '0')
    selected = position
    preview(position)
  }

  /** The token of the address, else the first with values; there is always one, so that Tab finds the text. */
  function selectNamed(): void {
    const position = positionOf(route.values)
    const measured = page?.tokens.find(({ entropy, surprisal }) => (entropy ?? surprisal) !== null)
    const otherwise = measured?.position ?? page?.start ?? 0
    select(position !== null && tokenAt(position) !== null ? position : otherwise)
  }

  function preview(position: number): void {
    shown = position
    drawDetail()
    if (timer !== null) clearTimeout(timer)
    timer = setTimeout(() => void askAlternatives(position), limits.settleMillis)
  }

  async function askAlternatives(position: number): Promise<void> {
    if (tokenAt(position)?.has_alternatives !== true || asked.has(position)) return
    asked.set(position, null)
    const path = `/v1/traces/${traceId}/tokens/${position}/alternatives`
    const { request_id, producer } = request
    const query = { request_id, producer, k: limits.alternatives }
    const answer = await api.get<Alternatives>(path, query, asking.signal)
    if (answer.status === 'aborted') return
    if (answer.status === 'success') asked.set(position, answer)
    else if (answer.problem.status === 404) asked.set(position, answer)
    else asked.delete(position)
    if (asked.size > limits.tokensPerPage) asked.clear()
    if (shown === position) render(tokenDetail(tokenAt(position), answer), detail)
  }

  function choose(position: number): void {
    select(position)
    elementAt(position)?.focus()
    navigation.note({ token: String(position) })
    const token = tokenAt(position)
    if (token !== null) announce(tokenSentence(token))
  }
  const onClick = (event: Event): void => {
    const position = positionAt(event)
    if (position !== null) choose(position)
  }
  const onPoint = (event: Event): void => {
    const position = positionAt(event)
    if (position !== null && position !== shown) preview(position)
  }
  const onKey = (event: KeyboardEvent): void => {
    const next = nextToken(event, text, selected)
    if (next === null) return
    event.preventDefault()
    choose(next)
  }
  const stopTheme = onTheme(draw)

  return {
    show(next) {
      route = next
      const position = positionOf(next.values)
      const wanted = tokens.startOf(position ?? 0)
      if (wanted !== start) {
        void load(wanted)
        return
      }
      draw()
      selectNamed()
    },
    close() {
      asking.abort()
      stopTheme()
      if (timer !== null) clearTimeout(timer)
    },
  }
}

interface Paint {
  readonly measure: Measure
  readonly scale: Scale
  readonly colours: ColourMap
}

function group(title: string, all: readonly Token[], paint: Paint) {
  if (all.length === 0) return nothing
  // Without spaces between the elements: the text is the model's alone.
  return html`<div role="group" aria-label=${title} data-title=${title}>${all.map((token) => tokenSpan(token, paint))}</div>`
}

function tokenSpan(token: Token, { measure, scale, colours }: Paint): TemplateResult {
  const value = token[measure]
  const colour = value === null ? '' : `background: ${cssColour(colours.at(scale.share(value)))}`
  return html`<span role="option" aria-selected="false" tabindex="-1" class=${value === null ? 'missing' : ''}
    data-position=${token.position} data-value=${value ?? ''} .style=${colour}>${leadingSpace(tokenText(token))}</span>`
}

/** A space before a word takes no colour: where the line breaks it would be a sliver at the end of the line. */
function leadingSpace(text: string): string | TemplateResult {
  const [, space = '', word = ''] = /^( +)(\S[\s\S]*)$/.exec(text) ?? []
  return space === '' ? text : html`<span class="space">${space}</span>${word}`
}

function missingNotes(
  { missing, vocabulary }: TokenPage,
  request: TracedRequest,
): TemplateResult | typeof nothing {
  const removed = removedOf(request)
  const notes =
    removed > 0
      ? [
          `${count(removed, 'tensor')} of this request ${removed === 1 ? 'is' : 'are'} no longer stored.`,
        ]
      : []
  if (removed === 0 || request.tensors.length > 0) notes.push(...missing)
  if (notes.length === 0 && vocabulary === 'unknown') notes.push('Texts of tokens are not stored.')
  if (notes.length === 0) return nothing
  return html`<ul class="notes" aria-label="What is missing">${notes.map((note) => html`<li>${note}</li>`)}</ul>`
}

function measureOf({ colour }: RouteValues): Measure {
  return colour === 'surprisal' ? 'surprisal' : 'entropy'
}

function positionOf({ token }: RouteValues): number | null {
  return token !== undefined && /^\d{1,9}$/.test(token) ? Number(token) : null
}

function positionAt(event: Event): number | null {
  if (!(event.target instanceof Element)) return null
  const element = event.target.closest<HTMLElement>('[data-position]')
  return element === null ? null : Number(element.dataset.position)
}
