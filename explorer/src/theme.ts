/** Dark or light: what the system prefers, unless the reader chose; and who wants to know of changes. */

import type { Theme } from './colour.ts'

export type ThemeChoice = Theme | 'system'

const storageKey = 'ring2-theme'
const dark = matchMedia('(prefers-color-scheme: dark)')
const listeners = new Set<() => void>()

export function themeChoice(): ThemeChoice {
  const kept = localStorage.getItem(storageKey)
  return kept === 'light' || kept === 'dark' ? kept : 'system'
}

export function theme(): Theme {
  const choice = themeChoice()
  if (choice !== 'system') return choice
  return dark.matches ? 'dark' : 'light'
}

export function chooseTheme(choice: ThemeChoice): void {
  if (choice === 'system') localStorage.removeItem(storageKey)
  else localStorage.setItem(storageKey, choice)
  apply()
}

/** @returns ends the listening. */
export function onTheme(listener: () => void): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

function apply(): void {
  document.documentElement.dataset.theme = theme()
  for (const listener of listeners) listener()
}

export function startTheme(): void {
  dark.addEventListener('change', apply)
  apply()
}
