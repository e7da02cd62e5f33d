/** How a failure reaches the user: exit code and two lines, or one JSON value. */

import { CommanderError } from 'commander';
import type { Command } from 'commander';
import { EXIT_CODE, EXIT_INTERRUPTED, UnderstudyError } from '../model/errors.ts';
import { failureOf } from '../server/api/failure.ts';
import type { CliSurroundings } from './context.ts';

/** Writes the failure and returns the exit code. */
export function reportFailure(error: unknown, json: boolean, { stdout, stderr, signal }: CliSurroundings): number {
  const interrupted = signal.aborted && !(error instanceof UnderstudyError);
  const { kind, code, message, remedy } = interrupted
    ? {
        kind: 'io' as const,
        code: 'INTERRUPTED',
        message: 'interrupted before it was done',
        remedy: 'Run the command again to go on.',
      }
    : failureOf(error);
  if (json) stdout.write(`${JSON.stringify({ error: { kind, code, message, remedy } })}\n`);
  else stderr.write(`understudy: ${code}: ${oneLine(message)}\n→ ${oneLine(remedy)}\n`);
  return interrupted ? EXIT_INTERRUPTED : EXIT_CODE[kind];
}

/** Commander's complaint about `command`'s words, in our format. */
export function usageError(error: CommanderError, command: Command): UnderstudyError {
  const remedy = `See: ${fullName(command)} --help`;
  if (error.code === 'commander.help')
    return new UnderstudyError('usage', 'MISSING_COMMAND', 'no command was given', remedy);
  const code = error.code
    .replace(/^commander\./, '')
    .replace(/[A-Z]/g, (letter) => `_${letter}`)
    .toUpperCase();
  return new UnderstudyError('usage', code, oneLine(error.message.replace(/^error: /, '')), remedy);
}

/** The host explains wrong parameters to programs; whoever typed them is shown the page of what was typed. */
export function withPage(error: unknown, page: string): unknown {
  if (!(error instanceof UnderstudyError) || error.code !== 'BAD_PARAMETERS') return error;
  return new UnderstudyError(error.kind, error.code, error.message, `See: understudy ${page}`, { cause: error });
}

function fullName(command: Command): string {
  return command.parent === null ? command.name() : `${fullName(command.parent)} ${command.name()}`;
}

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').trim();
}
