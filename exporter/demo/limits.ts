/** Bounds of the demo. */
export const demoLimits = {
  startMillis: 180_000,
  stopMillis: 30_000,
  /** How long an ended request may take to be drained, stored and catalogued. */
  storedMillis: 60_000,
  pollMillis: 100,
  requestMillis: 300_000,
  tokensPerAnswer: 24,
  logTailLines: 15,
} as const
