/** What a complete tensor of logits is: of a prefill the last position, of decoding every one. */
import { expect, test } from 'vitest'
import type { TensorRow } from '../../../collector/records.ts'
import { row, summary } from './rows.ts'
import { openFixture, query } from './store-fixture.ts'
import { temporaryFolder } from './temporary-folder.ts'

function logits(tokenStart: number, tokenEnd: number, step: number): TensorRow {
  const data = new Uint8Array(16 * (tokenEnd - tokenStart))
  const shape = [tokenEnd - tokenStart, 4]
  return row({ hook: 'final_logits', layer: -1, tokenStart, tokenEnd, step, shape, data })
}

/** The fixture's request: a prompt of two tokens, then one more. */
async function openLogits(rows: readonly TensorRow[]) {
  const fixture = openFixture(temporaryFolder())
  fixture.flush(rows, [summary()])
  return (await fixture.reader().open(query({ hook: 'final_logits', layer: -1 }))).plan
}

test('the last row of the prompt and every later one are complete', async () => {
  const plan = await openLogits([logits(1, 2, 0), logits(2, 3, 1)])
  expect(plan).toMatchObject({ completeness: 'complete', gaps: [], shape: [2, 4] })
})

test('rows of the whole prompt are complete too', async () => {
  const plan = await openLogits([logits(0, 2, 0), logits(2, 3, 1)])
  expect(plan).toMatchObject({ completeness: 'complete', gaps: [], shape: [3, 4] })
})

test('without the prompt’s last row they are not', async () => {
  const plan = await openLogits([logits(2, 3, 1)])
  expect(plan).toMatchObject({ completeness: 'incomplete', gaps: [{ start: 1, end: 2 }] })
})

test('without the row of a later step they are not', async () => {
  const plan = await openLogits([logits(1, 2, 0)])
  expect(plan).toMatchObject({ completeness: 'incomplete', gaps: [{ start: 2, end: 3 }] })
})
