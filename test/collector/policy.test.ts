import { expect, test } from 'vitest'
import { hooks } from '../../collector/hooks.gen.ts'
import { constants } from '../../collector/layout.gen.ts'
import { everything, planActions } from '../../collector/policy.ts'

const idOf = (name: string) => hooks.find((hook) => hook.name === name)?.id ?? -1

test('everything stores every hook of the catalogue and drops ids without a hook', () => {
  const actions = planActions(everything)
  const known = new Set(hooks.map((hook) => hook.id))
  expect(actions).toHaveLength(constants.hooksMax)
  for (const [id, action] of actions.entries()) {
    expect(action).toBe(known.has(id) ? constants.actionTensor : constants.actionDrop)
  }
})

test('a hook that is stored is measured too, and one in neither list is dropped', () => {
  const actions = planActions({ stats: ['pattern'], tensors: ['resid_pre'] })
  expect(actions[idOf('resid_pre')]).toBe(constants.actionTensor)
  expect(actions[idOf('pattern')]).toBe(constants.actionStats)
  expect(actions[idOf('q')]).toBe(constants.actionDrop)
})

test('measuring everything and storing nothing stores nothing', () => {
  const actions = planActions({ stats: ['all'], tensors: [] })
  expect([...actions].filter((action) => action === constants.actionTensor)).toEqual([])
  expect([...actions].filter((action) => action === constants.actionStats)).toHaveLength(
    hooks.length,
  )
})

test('empty lists drop everything', () => {
  expect([...planActions({ stats: [], tensors: [] })]).toEqual(Array(constants.hooksMax).fill(0))
})

test.each([['stats'], ['tensors']] as const)(
  'an unknown hook in %s is named, with those that exist',
  (list) => {
    const policy = { stats: [], tensors: [], [list]: ['resid_pre', 'resid_prä'] }
    expect(() => planActions(policy)).toThrow(
      expect.objectContaining({
        code: 'RING2_E_CONFIG',
        expected: expect.stringContaining('resid_pre, '),
        actual: 'the hook "resid_prä"',
      }),
    )
  },
)
