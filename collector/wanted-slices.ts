/**
 * What becomes of the rows of a step and of its tensors, by the policy that the step was captured by
 * (control-book.ts). A producer that has read the control words has left out already what nobody
 * wants; of one that has not, it is left out here, so that it appears nowhere.
 */
import type { Step } from './bodies.ts'
import type { ControlBook } from './control-book.ts'
import { constants } from './layout.gen.ts'
import type { RequestRegistry } from './requests.ts'
import type { Slices } from './slices.ts'

/** Tells the registry of each request's part of a step. */
export function takeStep(
  book: ControlBook,
  registry: RequestRegistry,
  { step, sequence, extra, again, rows }: Step,
  atMicros: number,
): void {
  book.step(step, sequence)
  if (extra || again) return
  for (const row of rows) {
    const info = registry.find(row.requestKey)?.info
    const wanted = book.wantsTokens(step, info, row.phase, row.tokenStart, row.tokenEnd)
    if (wanted) registry.step(row, atMicros, sequence)
    else registry.leaveOut(row, atMicros)
  }
}

/** ring2_action of a slice before it is measured. */
export function actionOf(
  book: ControlBook,
  registry: RequestRegistry,
  slices: Slices,
  index: number,
): number {
  if (slices.isUnattributed(index)) return constants.actionDrop
  const step = slices.step(index)
  const action = book.actionOf(step, slices.hookId(index), slices.layer(index))
  if (action === constants.actionDrop) return action
  const info = registry.find(slices.requestKey(index))?.info
  const [start, end] = [slices.tokenStart(index), slices.tokenEnd(index)]
  const wanted = book.wantsTokens(step, info, slices.phase(index), start, end)
  return wanted ? action : constants.actionDrop
}
