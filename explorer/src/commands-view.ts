/** The panel of commands: a choice of hook and layer, and what fetches that tensor, each to be copied. */
import { html, render, type TemplateResult } from 'lit-html'
import { type Route, type RouteKey, withValues } from './address.ts'
import { announce } from './announce.ts'
import { type Command, commandsOf } from './commands.ts'
import { bytesText } from './format.ts'
import { firstHook, hooksOf, isRedacted, layersOf, removedOf } from './held.ts'
import type { PanelContext } from './panel-context.ts'
import { selectField } from './select-field.ts'
import type { StoreFacts } from './shapes.ts'
import type { View } from './view.ts'

export function createCommandsView(host: HTMLElement, context: PanelContext): View {
  const { api, navigation, request, traceId } = context
  const asking = new AbortController()
  let route: Route = { traceId, values: {} }
  let store: string | null = null

  async function load(): Promise<void> {
    const answer = await api.get<StoreFacts>('/v1/store', {}, asking.signal)
    // Without the answer the commands say STORE, for the reader to fill in.
    if (answer.status === 'success') store = answer.value.url
    if (answer.status !== 'aborted') draw()
  }

  function draw(): void {
    const { tensors } = request
    if (tensors.length === 0) {
      render(
        html`<p class="nothing">${
          removedOf(request) > 0
            ? 'The tensors of this request are no longer stored, so there is nothing to fetch.'
            : 'No tensors of this request are stored, so there is nothing to fetch.'
        }</p>`,
        host,
      )
      return
    }
    const hooks = hooksOf(request)
    const hook = hooks.find((one) => one === route.values.hook) ?? firstHook(request, hooks) ?? ''
    const held = tensors.filter((one) => one.hook === hook)
    const layers = layersOf(request, [hook])
    const layer = layers.find((one) => String(one) === route.values.layer) ?? layers[0] ?? -1
    const parts = held.filter((one) => one.layer === layer)
    const bytes = parts.reduce((sum, one) => sum + one.bytes, 0)
    const redacted = isRedacted(parts)
    const set = (key: RouteKey) => (value: string) =>
      navigation.go(withValues(route, { [key]: value }))
    const commands = commandsOf({
      origin: api.origin,
      store,
      authorized: api.authorized(),
      traceId,
      storedTraceId: request.trace_id,
      requestId: request.request_id,
      producer: request.producer,
      hook,
      layer,
    })
    render(
      html`<div class="controls">
          ${selectField('Hook', 'hook', hooks, hook, set('hook'))}
          ${layer < 0 ? html`<p class="field">without layers</p>` : selectField('Layer', 'layer', layers.map(String), String(layer), set('layer'))}
          <p class="field">${held[0]?.dtype ?? ''}, ${redacted ? 'redacted' : `${bytesText(bytes)} stored`}</p>
        </div>
        ${redacted ? redactedView(hook) : html`<div class="commands">${commands.map(commandView)}</div>`}`,
      host,
    )
  }

  return {
    show(next) {
      route = next
      draw()
      if (store === null) void load()
    },
    close: () => asking.abort(),
  }
}

function redactedView(hook: string): TemplateResult {
  return html`<p class="nothing"><code>${hook}</code> is redacted: its elements were left out when it was
    captured (<code>capture.redact_hooks</code>), so no command can fetch them.
    Its shape and statistics are stored.</p>`
}

/** Each word in a piece of its own: a line may break between words, and not after a hyphen. */
function unbroken(text: string): readonly (string | TemplateResult)[] {
  return text
    .split(/( +|\n)/)
    .map((part) => (/^[ \n]*$/.test(part) ? part : html`<span class="word">${part}</span>`))
}

function commandView({ name, what, text }: Command): TemplateResult {
  const copy = async (event: Event): Promise<void> => {
    const button = event.currentTarget
    const done = await navigator.clipboard.writeText(text).then(
      () => 'Copied',
      () => 'Select and copy it',
    )
    if (button instanceof HTMLButtonElement) button.textContent = done
    announce(`${name}: ${done}`)
  }
  return html`<section>
    <h2>${name} <small>${what}</small></h2>
    <button type="button" aria-label=${`Copy the ${name} command`} @click=${copy}>Copy</button>
    <pre tabindex="0" aria-label=${name}><code>${unbroken(text)}</code></pre>
  </section>`
}
