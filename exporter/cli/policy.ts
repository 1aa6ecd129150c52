/** `ring2-exporter policy get|set FILE`: the capture policy of a running service, over its API. */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { parse, stringify } from 'yaml'
import { errorTable } from '../../collector/errors.gen.ts'
import { readPolicy } from '../../collector/index.ts'
import type { PolicyAnswer } from '../capture-policy.ts'
import type { Config } from '../config.ts'
import { type ErrorCode, errorText, Ring2Error } from '../errors.ts'
import { type ConfigOptions, configFrom, withConfig } from './config-option.ts'
import { exitCodes, print, printJson, tell } from './outcome.ts'

interface PolicyOptions extends ConfigOptions {
  readonly url?: string
  readonly json?: boolean
}

const waitMillis = 10_000

export function policyCommand(command: Command): void {
  command.description('read or replace what a running service captures (docs/policy.md)')
  options(command.command('get'))
    .description('print the policy in force, as a file for `set`')
    .action(async (chosen: PolicyOptions) => {
      show(await ask(chosen, null), chosen)
    })
  options(command.command('set'))
    .description('replace the policy; what is not in the file is wanted')
    .argument('<file>', 'YAML or JSON; - reads standard input')
    .action(async (file: string, chosen: PolicyOptions) => {
      const document = readDocument(file)
      readPolicy(document)
      const answer = await ask(chosen, document)
      tell('the policy holds from the next forward pass on')
      show(answer, chosen)
    })
}

function options(command: Command): Command {
  return withConfig(command)
    .option('--url <url>', 'of the API; default: where the configuration says it listens')
    .option('--json', 'print one JSON document, shaped as GET /v1/policy of the API')
}

function readDocument(file: string): unknown {
  const text = readText(file)
  try {
    // Every JSON document is a YAML document.
    return parse(text)
  } catch (cause) {
    throw new Ring2Error('RING2_E_POLICY', {
      expected: `a YAML or JSON document in ${file}`,
      actual: errorText(cause),
      cause,
    })
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8')
  } catch (cause) {
    throw new Ring2Error('RING2_E_SYSTEM', {
      expected: `a policy to read in ${file === '-' ? 'standard input' : file}`,
      actual: errorText(cause),
      cause,
    })
  }
}

function show(answer: PolicyAnswer, { json }: PolicyOptions): void {
  if (json === true) printJson(answer)
  else print(stringify(answer.policy))
  process.exitCode = exitCodes.done
}

async function ask(options: PolicyOptions, document: unknown): Promise<PolicyAnswer> {
  const { config } = configFrom(options)
  const url = `${(options.url ?? addressOf(config)).replace(/\/+$/, '')}/v1/policy`
  const { token } = config.api
  let answer: Response
  try {
    answer = await fetch(url, {
      method: document === null ? 'GET' : 'PUT',
      headers: {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...(document === null ? {} : { 'content-type': 'application/json' }),
      },
      ...(document === null ? {} : { body: JSON.stringify(document) }),
      signal: AbortSignal.timeout(waitMillis),
    })
  } catch (cause) {
    const reason = cause instanceof Error && cause.cause !== undefined ? cause.cause : cause
    throw new Ring2Error('RING2_E_UNREACHABLE', {
      expected: `a running service at ${url}`,
      actual: errorText(reason),
      cause,
    })
  }
  const body: unknown = await answer.json().catch(() => null)
  if (!answer.ok) throw problem(body, answer.status, url)
  return body as PolicyAnswer
}

/** The address to ask: a wildcard is listened at, not asked. */
function addressOf({ api }: Config): string {
  const anywhere = api.host === '0.0.0.0' || api.host === '::'
  const host = anywhere ? '127.0.0.1' : api.host
  return `http://${host.includes(':') ? `[${host}]` : host}:${api.port}`
}

function problem(body: unknown, status: number, url: string): Ring2Error {
  const field = (name: string): string => {
    const value = typeof body === 'object' && body !== null ? Reflect.get(body, name) : undefined
    return typeof value === 'string' ? value : ''
  }
  const known = Object.hasOwn(errorTable, field('code'))
  const code = known ? (field('code') as ErrorCode) : 'RING2_E_UNREACHABLE'
  const expected = field('expected') || `an answer of ring2-exporter at ${url}`
  return new Ring2Error(code, { expected, actual: field('actual') || `status ${status}` })
}
