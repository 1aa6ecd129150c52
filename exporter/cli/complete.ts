/** `ring2-exporter completion`: shell completion, made from the commands themselves. */
import type { Command } from 'commander'
import { Ring2Error } from '../errors.ts'
import { print } from './outcome.ts'

const shells = ['bash', 'zsh', 'fish'] as const

interface Words {
  readonly command: string
  readonly words: readonly string[]
}

export function completionCommand(command: Command, program: Command): void {
  command
    .description('print a completion script for bash, zsh or fish')
    .argument('<shell>', shells.join(', '))
    .action((shell: string) => {
      print(script(shell, program))
    })
}

function optionsOf(command: Command): string[] {
  return command.options.flatMap((option) => option.long ?? [])
}

function wordsOf(program: Command): Words[] {
  return program.commands.map((command) => {
    const subs = command.commands
    const options = [command, ...subs].flatMap(optionsOf)
    const words = new Set([...subs.map((sub) => sub.name()), ...options, '--help'])
    return { command: command.name(), words: [...words] }
  })
}

function script(shell: string, program: Command): string {
  const words = wordsOf(program)
  const names = [...words.map(({ command }) => command), '--help', '--version']
  switch (shell) {
    case 'bash':
      return bash(words, names)
    case 'zsh':
      // Zsh reads bash's completions through its own compatibility layer.
      return `autoload -U +X bashcompinit && bashcompinit\n${bash(words, names)}`
    case 'fish':
      return fish(words)
    default:
      throw new Ring2Error('RING2_E_QUERY', {
        expected: `a shell: ${shells.join(', ')}`,
        actual: JSON.stringify(shell),
      })
  }
}

function bash(words: readonly Words[], names: readonly string[]): string {
  const cases = words.map(
    ({ command, words: known }) => `    ${command}) known="${known.join(' ')}" ;;`,
  )
  return [
    '_ring2_exporter() {',
    '  local known',
    `  case "\${COMP_WORDS[1]}" in`,
    ...cases,
    `    *) known="${names.join(' ')}" ;;`,
    '  esac',
    `  [ "$COMP_CWORD" -eq 1 ] && known="${names.join(' ')}"`,
    `  COMPREPLY=($(compgen -W "$known" -- "\${COMP_WORDS[COMP_CWORD]}"))`,
    '}',
    'complete -o default -F _ring2_exporter ring2-exporter',
  ].join('\n')
}

function fish(words: readonly Words[]): string {
  return words
    .flatMap(({ command, words: known }) => [
      `complete -c ring2-exporter -n __fish_use_subcommand -a ${command}`,
      ...known.map((word) =>
        word.startsWith('--')
          ? `complete -c ring2-exporter -n '__fish_seen_subcommand_from ${command}' -l ${word.slice(2)}`
          : `complete -c ring2-exporter -n '__fish_seen_subcommand_from ${command}' -a ${word}`,
      ),
    ])
    .join('\n')
}
