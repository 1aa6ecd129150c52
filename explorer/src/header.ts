/** The bar at the top: the way home, a field that opens a trace, and the choice of dark and light. */
import { html, render } from 'lit-html'
import { hrefOf, type Route, routeOfText } from './address.ts'
import type { Navigation } from './route.ts'
import { chooseTheme, type ThemeChoice, themeChoice } from './theme.ts'

export function createHeader(host: HTMLElement, navigation: Navigation) {
  const submit = (event: SubmitEvent): void => {
    event.preventDefault()
    const text = host.querySelector('input')?.value.trim() ?? ''
    if (text === '') return
    navigation.go(routeOfText(text))
  }
  const choose = (event: Event): void => {
    if (event.target instanceof HTMLSelectElement) chooseTheme(event.target.value as ThemeChoice)
  }

  function show(route: Route): void {
    const home = hrefOf(navigation.base, { traceId: null, values: {} })
    const choice = themeChoice()
    const themes: readonly ThemeChoice[] = ['system', 'light', 'dark']
    render(
      html`<div class="bar">
        <a class="home" href=${home} data-own><span class="mark" aria-hidden="true"></span>ring2 <b>explorer</b></a>
        <form role="search" aria-label="Open a trace" class="open" ?hidden=${route.traceId === null} @submit=${submit}>
          <input type="search" name="open" aria-label="Trace id or request id"
            placeholder="Trace id or request id" spellcheck="false" autocomplete="off">
          <button type="submit">Open</button>
        </form>
        <label class="theme"><span>Theme</span>
          <select name="theme" @change=${choose}>
            ${themes.map((name) => html`<option value=${name} ?selected=${name === choice}>${name}</option>`)}
          </select>
        </label>
      </div>`,
      host,
    )
  }
  return { show }
}
