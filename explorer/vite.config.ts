/**
 * Builds the explorer into build/explorer: one script, one style sheet, both named by their hash, and
 * the page that names them. Nothing is inlined: the page's Content-Security-Policy allows no inline script.
 */
import { join } from 'node:path'
import { defineConfig } from 'vite'

export default defineConfig({
  root: import.meta.dirname,
  base: '/',
  publicDir: false,
  logLevel: 'warn',
  build: {
    outDir: join(import.meta.dirname, '../build/explorer'),
    emptyOutDir: true,
    target: 'es2023',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
})
