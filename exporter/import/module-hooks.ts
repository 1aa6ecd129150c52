/**
 * Which hook of the catalogue a module's output is, where its name alone makes that certain; else a
 * hook named after the module. Pure.
 *
 * Outputs of blocks and of their parts are not certain: whether they are taken before or after a norm,
 * and whether a block's output is the next block's input or the last, depends on the model.
 */

import { createHash } from 'node:crypto'

/** What `fetch --hook` takes. */
const HOOK_CHARACTERS_MAX = 64
const HASH_CHARACTERS = 8
const PREFIX = 'module_'

const certain: readonly (readonly [RegExp, string])[] = [
  [/^(lm_head|embed_out)$/, 'final_logits'],
  [/^(model|transformer|gpt_neox)\.(embed_tokens|wte|embed_in)$/, 'embed'],
  [/^(model|transformer|gpt_neox)\.(norm|ln_f|final_layer_norm)$/, 'final_ln'],
]

/** Gives each module a hook of its own; the same modules in the same order, the same hooks. */
export function createModuleHooks(): (module: string) => string {
  const hooks = new Map<string, string>()
  const taken = new Set<string>()
  return (module) => {
    const known = hooks.get(module)
    if (known !== undefined) return known
    const wanted = certain.find(([pattern]) => pattern.test(module))?.[1] ?? namedAfter(module)
    const hook = taken.has(wanted) ? withHash(wanted, module) : wanted
    hooks.set(module, hook)
    taken.add(hook)
    return hook
  }
}

function namedAfter(module: string): string {
  const text = module === '' ? 'root' : module.toLowerCase().replaceAll(/[^a-z0-9]+/g, '_')
  const name = `${PREFIX}${text}`
  return name.length > HOOK_CHARACTERS_MAX ? withHash(name, module) : name
}

function withHash(name: string, module: string): string {
  const hash = createHash('sha256').update(module, 'utf8').digest('hex').slice(0, HASH_CHARACTERS)
  return `${name.slice(0, HOOK_CHARACTERS_MAX - HASH_CHARACTERS - 1)}_${hash}`
}
