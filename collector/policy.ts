/**
 * What happens to a captured slice: dropped, measured, or measured and stored.
 *
 * Pure. In this version the choice depends on the hook alone; it is compiled to one action per hook,
 * so that asking costs nothing and the producer can be told not to copy what nobody wants.
 */
import { Ring2Error } from './errors.ts'
import { hooks } from './hooks.gen.ts'
import { constants } from './layout.gen.ts'

export interface CapturePolicy {
  /** Hook names to measure, or `all`. */
  readonly stats: readonly string[]
  /** Hook names to store, which measures them too, or `all`. */
  readonly tensors: readonly string[]
}

export const everything: CapturePolicy = { stats: ['all'], tensors: ['all'] }

/** ring2_action by hook id; ids without a hook are dropped. */
export function planActions(policy: CapturePolicy): Uint8Array {
  const known = new Set(hooks.map((hook) => hook.name))
  for (const name of [...policy.stats, ...policy.tensors]) {
    if (name === 'all' || known.has(name)) continue
    throw new Ring2Error('RING2_E_CONFIG', {
      expected: `hook names of the catalogue (${[...known].join(', ')}) or all`,
      actual: `the hook ${JSON.stringify(name)}`,
    })
  }
  const includes = (list: readonly string[], name: string) =>
    list.includes('all') || list.includes(name)
  const actions = new Uint8Array(constants.hooksMax)
  for (const hook of hooks) {
    if (includes(policy.tensors, hook.name)) actions[hook.id] = constants.actionTensor
    else if (includes(policy.stats, hook.name)) actions[hook.id] = constants.actionStats
  }
  return actions
}
