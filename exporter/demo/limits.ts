/** Bounds of the demo. */
export const demoLimits = {
  startMillis: 180_000,
  stopMillis: 30_000,
  /** How long an ended request may take to be drained, stored, catalogued, and shown by a server. */
  storedMillis: 60_000,
  /** From the broken answers to the alert: export, evaluation, and Alertmanager's own waits. */
  alertMillis: 120_000,
  pollMillis: 100,
  probeMillis: 2_000,
  /** Of `docker compose up`, which tells of every layer it fetches. */
  dockerOutputBytesMax: 64 << 20,
  requestMillis: 300_000,
  tokensPerAnswer: 24,
  logTailLines: 15,
  /** Of one message of Alertmanager. */
  notificationBytesMax: 1 << 20,
  notificationsMax: 1000,
} as const
