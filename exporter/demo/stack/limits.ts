/** Bounds of the real servers that the demo and the tests run. */
export const stackLimits = {
  /** A Collector on a machine whose cores are all busy answers after some seconds. */
  healthyMillis: 60_000,
  pollMillis: 100,
  probeMillis: 2_000,
  /** A Collector works off its queues before it ends. */
  stopMillis: 30_000,
  logTailLines: 15,
  /** Below what Linux gives to outgoing connections, so that a port stays free between two starts. */
  portFrom: 20_000,
  portTo: 32_000,
  portTries: 200,
} as const
