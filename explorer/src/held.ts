/** What is stored of a request: its hooks and layers, which one to open first, what was left out or removed. Pure. */
import { hooks as knownHooks } from '../../collector/hooks.gen.ts'
import type { HeldTensor, TracedRequest } from './shapes.ts'

type Held = Pick<TracedRequest, 'tensors'>

export function hooksOf({ tensors }: Held): string[] {
  return [...new Set(tensors.map(({ hook }) => hook))]
}

/** Hooks that have a vector per token and layer. */
export function normHooksOf(request: Held): string[] {
  const vectors = new Set(
    knownHooks.filter((hook) => hook.layered && hook.shape === 'token').map((hook) => hook.name),
  )
  return hooksOf(request).filter((hook) => vectors.has(hook))
}

/** Layers of the hooks, ascending; −1 stands for hooks without layers. */
export function layersOf({ tensors }: Held, hooks: readonly string[]): number[] {
  const all = tensors.filter(({ hook }) => hooks.includes(hook)).map(({ layer }) => layer)
  return [...new Set(all)].sort((one, other) => one - other)
}

/** The one that a view opens: resid_pre, else the first of floats; one that is redacted comes last. */
export function firstHook({ tensors }: Held, hooks: readonly string[]): string | undefined {
  const of = (hook: string) => tensors.filter((one) => one.hook === hook)
  const readable = hooks.filter((hook) => !isRedacted(of(hook)))
  const floats = readable.filter((hook) => of(hook).some(({ dtype }) => /^b?float/.test(dtype)))
  return floats.find((hook) => hook === 'resid_pre') ?? floats[0] ?? readable[0] ?? hooks[0]
}

/** Redaction keeps the rows of a tensor and none of its elements. */
export function isRedacted(held: readonly HeldTensor[]): boolean {
  return held.length > 0 && held.every(({ rows, bytes }) => rows > 0 && bytes === 0)
}

/** Tensors that were stored when the request ended and are not there now: retention, or a deletion. */
export function removedOf({ details, tensors_stored: stored }: TracedRequest): number {
  return details === null ? 0 : Math.max(0, details.tensors_stored - stored)
}
