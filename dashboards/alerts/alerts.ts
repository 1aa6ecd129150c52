/** Every alert that is shipped, in the order of the rule files. */
import type { Alert } from './alert.ts'
import { captureAlerts } from './capture-alerts.ts'
import { modelAlerts } from './model-alerts.ts'
import { objectiveAlerts } from './objective.ts'
import { pipelineAlerts } from './pipeline-alerts.ts'

export const alerts: readonly Alert[] = [
  ...objectiveAlerts,
  ...modelAlerts,
  ...captureAlerts,
  ...pipelineAlerts,
]
