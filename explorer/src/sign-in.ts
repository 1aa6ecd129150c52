/**
 * Asks for the API's bearer token when the API wants one. The token is kept for this tab alone
 * (sessionStorage) and goes nowhere but into the header of requests to this origin.
 */
import { html, nothing, render } from 'lit-html'
import type { TokenKeeper } from './api.ts'

const storageKey = 'ring2-token'

/** @param host stays in the page; the dialog is drawn into it. */
export function createTokenKeeper(host: HTMLElement): TokenKeeper {
  let asking: Promise<string | null> | null = null

  async function open(refused: boolean): Promise<string | null> {
    const { promise, resolve } = Promise.withResolvers<string | null>()
    const submit = (event: SubmitEvent): void => {
      event.preventDefault()
      const input = host.querySelector('input')
      const token = input?.value.trim() ?? ''
      if (token === '') return
      sessionStorage.setItem(storageKey, token)
      resolve(token)
    }
    render(
      html`<dialog aria-labelledby="token-title" @cancel=${() => resolve(null)}>
        <form @submit=${submit}>
          <h2 id="token-title">This exporter asks for a token</h2>
          <p>Its administrator set one as <code>api.token</code>. It is kept in this tab only.</p>
          ${
            refused
              ? html`<p class="refused" role="alert">The exporter refused that token.</p>`
              : nothing
          }
          <label>Bearer token
            <input type="password" name="token" required autocomplete="off" spellcheck="false" .value=${''}>
          </label>
          <p class="actions">
            <button type="button" @click=${() => resolve(null)}>Cancel</button>
            <button type="submit" class="main">Continue</button>
          </p>
        </form>
      </dialog>`,
      host,
    )
    host.querySelector('dialog')?.showModal()
    host.querySelector('input')?.focus()
    const token = await promise
    render(nothing, host)
    return token
  }

  return {
    token: () => sessionStorage.getItem(storageKey),
    ask(refused) {
      if (refused) sessionStorage.removeItem(storageKey)
      asking ??= open(refused).finally(() => {
        asking = null
      })
      return asking
    },
  }
}
