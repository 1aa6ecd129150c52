/**
 * What the producer of one segment was told to want, and when: which policy stands behind each
 * sequence of the control words, so that a step that was captured before a change is judged and
 * treated by what was wanted then.
 *
 * A sequence that nobody here has written is unknown, and so is a producer that knows no sequences
 * once the policy has changed: that is a doubt, never a guess. It is kept in the checkpoint.
 */
import { constants, control } from './layout.gen.ts'
import { collectorLimits } from './limits.ts'
import { type NativeConsumer, wantsRequest } from './native.ts'
import { type CapturePlan, type CapturePolicy, planCapture } from './policy.ts'
import type { Phase, RequestInfo } from './records.ts'

export type Wants = (hook: string, layer: number) => boolean

/** What a request's completeness is judged by. */
export interface Expectation {
  /** What a step of this sequence was to hold; null when that is not known. */
  wantsOf(sequence: number): Wants | null
}

export interface StoredControl {
  readonly sequence: number
  readonly policy: CapturePolicy
}

export interface ControlBook extends Expectation {
  /** Tells the producer, unless it knows. */
  apply(plan: CapturePlan): void
  /** Which control words a step was captured by. */
  step(step: number, sequence: number): void
  /** ring2_action for a tensor of a step. */
  actionOf(step: number, hookId: number, layer: number): number
  /**
   * Whether a request's tokens are wanted in a step. A producer that has read the words has decided
   * that itself; of one that has not, what is not wanted is left out here.
   */
  wantsTokens(
    step: number,
    request: RequestInfo | undefined,
    phase: Phase,
    start: number,
    end: number,
  ): boolean
  store(): readonly StoredControl[]
}

/** What an exporter that is gone told a producer that is gone. */
export function storedExpectation(stored: readonly StoredControl[] | undefined): Expectation {
  const plans = new Map(stored?.map(({ sequence, policy }) => [sequence, planCapture(policy)]))
  return { wantsOf: (sequence) => plans.get(sequence)?.wants ?? null }
}

/** @param stored what the last exporter had told this producer. */
export function createControlBook(
  consumer: Pick<NativeConsumer, 'control' | 'setControl'>,
  first: CapturePlan,
  stored: readonly StoredControl[] = [],
): ControlBook {
  const { controlSequenceCreated: created } = constants
  const plans = new Map(stored.map(({ sequence, policy }) => [sequence, planCapture(policy)]))
  const steps = new Map<number, number>()
  let current = first
  const left = consumer.control()
  const untouched = left.subarray(control.wanted).every((byte) => byte === 0xff)
  // Whoever attached before any exporter captured everything, and this policy says what is kept.
  if (sequenceIn(left) === created && untouched && !plans.has(created)) remember(created, first)
  // Such a producer reads the bitmap alone, and never says which one it had read.
  if (!plans.has(0) && stored.length === 0) remember(0, first)

  function remember(sequence: number, plan: CapturePlan): void {
    plans.delete(sequence)
    plans.set(sequence, plan)
    if (plans.size > collectorLimits.controlsMax) plans.delete(plans.keys().next().value as number)
  }

  function apply(plan: CapturePlan): void {
    if (!wantsTheSame(plan, current)) plans.delete(0)
    current = plan
    remember(consumer.setControl(plan.control), plan)
  }

  function planOf(step: number): CapturePlan {
    return plans.get(steps.get(step) ?? 0) ?? current
  }

  apply(first)
  return {
    apply,
    wantsOf: (sequence) => plans.get(sequence)?.wants ?? null,
    step(step, sequence) {
      // One that is announced again moves to the end: its tensors are yet to come.
      steps.delete(step)
      steps.set(step, sequence)
      if (steps.size > collectorLimits.checkpointStepsMax) {
        steps.delete(steps.keys().next().value as number)
      }
    },
    actionOf: (step, hookId, layer) => planOf(step).actionOf(hookId, layer),
    wantsTokens(step, request, phase, start, end) {
      if ((steps.get(step) ?? 0) > created) return true
      const plan = planOf(step)
      if (plan.choosesTokens && !plan.wantsTokens(phase, start, end)) return false
      if (!plan.choosesRequests || request === undefined) return true
      return wantsRequest(plan.control, request.requestId, isSampled(request))
    },
    store: () => Array.from(plans, ([sequence, { policy }]) => ({ sequence, policy })),
  }
}

/** The words before they are written: their sequence is the consumer's. */
function wantsTheSame(one: CapturePlan, other: CapturePlan): boolean {
  return Buffer.compare(one.control, other.control) === 0
}

function sequenceIn(words: Uint8Array): number {
  return new DataView(words.buffer, words.byteOffset).getUint32(control.sequence, true)
}

/** As the producer decides it: by the header alone. */
function isSampled({ traceOrigin, traceFlags }: RequestInfo): boolean {
  return traceOrigin === 'request' && (traceFlags & 1) === 1
}
