/** The command line: `ring2-exporter`. */
import { Command, CommanderError } from 'commander'
import { calibrateCommand } from './cli/calibrate.ts'
import { catalogCommand } from './cli/catalog.ts'
import { checkCommand } from './cli/check.ts'
import { completionCommand } from './cli/complete.ts'
import { deleteCommand } from './cli/delete.ts'
import { demoCommand } from './cli/demo.ts'
import { dmiBridgeCommand } from './cli/dmi-bridge.ts'
import { fetchCommand } from './cli/fetch.ts'
import { importCommand } from './cli/import.ts'
import { llamaProxyCommand } from './cli/llama-proxy.ts'
import { lsCommand } from './cli/ls.ts'
import { exitCodes, showError, surviveClosedOutput } from './cli/outcome.ts'
import { policyCommand } from './cli/policy.ts'
import { retentionCommand } from './cli/retention.ts'
import { ringsCommand } from './cli/rings.ts'
import { runCommand } from './cli/run.ts'
import { version } from './version.ts'

surviveClosedOutput()

const program = new Command('ring2-exporter')
  .description('Internals of a running LLM as OpenTelemetry and Parquet, fetched by trace id.')
  .version(version)
  .exitOverride()

runCommand(program.command('run'))
demoCommand(program.command('demo'))
checkCommand(program.command('check'))
ringsCommand(program.command('rings'))
llamaProxyCommand(program.command('llama-proxy'))
policyCommand(program.command('policy'))
lsCommand(program.command('ls'))
fetchCommand(program.command('fetch'))
deleteCommand(program.command('delete'))
retentionCommand(program.command('retention'))
importCommand(program.command('import'))
dmiBridgeCommand(program.command('dmi-bridge'))
calibrateCommand(program.command('calibrate'))
catalogCommand(program.command('catalog'))
completionCommand(program.command('completion'), program)

try {
  await program.parseAsync()
} catch (error) {
  // Commander has already said what is wrong with the usage; help and version are no errors.
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? exitCodes.done : exitCodes.usage
  } else {
    process.exitCode = showError(error)
  }
}
