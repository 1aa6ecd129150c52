/**
 * Four projects: `unit` mirrors the sources and runs in parallel; `pipeline` starts real processes,
 * a model and a browser among them, `engines` real inference servers, and `stack` the real Collector, Jaeger,
 * Prometheus and Alertmanager. These three run one file at a time so that the processes do not starve each other.
 */
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 120_000,
    teardownTimeout: 20_000,
    reporters: process.env.CI === undefined ? ['default'] : ['default', 'github-actions'],
    chaiConfig: { truncateThreshold: 400 },
    env: { OMP_NUM_THREADS: '1', HF_HUB_OFFLINE: '1', NO_COLOR: '1' },
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/pipeline/**', 'test/explorer/**', 'test/engines/**', 'test/stack/**'],
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'pipeline',
          include: ['test/pipeline/**/*.test.ts', 'test/explorer/**/*.test.ts'],
          testTimeout: 120_000,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'engines',
          include: ['test/engines/**/*.test.ts'],
          testTimeout: 240_000,
          hookTimeout: 240_000,
          maxWorkers: 1,
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        test: {
          name: 'stack',
          include: ['test/stack/**/*.test.ts'],
          testTimeout: 120_000,
          maxWorkers: 1,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
})
