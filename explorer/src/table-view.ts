/** The table that stands for a picture: asked for when it is opened, of what the picture shows. */
import { html, nothing, render } from 'lit-html'
import type { Answer } from './api.ts'
import { problemView, waitingView } from './problem-view.ts'

export interface Table {
  readonly caption: string
  readonly corner: string
  readonly columns: readonly string[]
  readonly rows: readonly { readonly name: string; readonly cells: readonly string[] }[]
}

export interface TableAlternative {
  /** @param key names what is in view; another key makes the table be asked for again. */
  show(key: string): void
  close(): void
}

export function createTableAlternative(
  host: HTMLElement,
  title: string,
  ask: (signal: AbortSignal) => Promise<Answer<Table>>,
): TableAlternative {
  let open = false
  let wanted = ''
  let filled = ''
  let answer: Answer<Table> | null = null
  let asking = new AbortController()

  async function fill(): Promise<void> {
    if (!open || filled === wanted) return
    filled = wanted
    asking.abort()
    asking = new AbortController()
    const { signal } = asking
    answer = null
    draw()
    const came = await ask(signal)
    if (signal.aborted) return
    answer = came
    draw()
  }

  function draw(): void {
    const toggle = (event: Event): void => {
      open = event.target instanceof HTMLDetailsElement && event.target.open
      draw()
      void fill()
    }
    render(
      html`<details class="table-alternative" @toggle=${toggle}><summary>${title}</summary>
        ${open ? content() : nothing}</details>`,
      host,
    )
  }

  function content() {
    if (answer === null) return waitingView('the table')
    if (answer.status === 'problem') return problemView(answer.problem)
    if (answer.status === 'aborted') return nothing
    const { caption, corner, columns, rows } = answer.value
    return html`<div class="wide" tabindex="0" role="region" aria-label=${title}><table class="values">
      <caption>${caption}</caption>
      <thead><tr><th scope="col">${corner}</th>${columns.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
      <tbody>${rows.map(
        (row) =>
          html`<tr><th scope="row">${row.name}</th>${row.cells.map((cell) => html`<td>${cell}</td>`)}</tr>`,
      )}</tbody>
    </table></div>`
  }

  draw()
  return {
    show(key) {
      wanted = key
      void fill()
    },
    close: () => asking.abort(),
  }
}
