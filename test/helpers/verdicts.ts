/** Verdicts for tests that are about something else: only NaN and infinities are judged. */
import { createVerdicts, noBaselines, type Verdicts } from '../../collector/verdicts.ts'

export function nonfiniteVerdicts(): Verdicts {
  return createVerdicts({ rules: ['nonfinite'], statistics: ['all'], book: noBaselines })
}
