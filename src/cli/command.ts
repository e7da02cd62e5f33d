/** A command as data: from it come the parser, the help page and the run. */

import { Command, InvalidArgumentError, Option } from 'commander';
import type { CommandContext } from './context.ts';

export interface CommandDefinition {
  /** The words that name it: `vm add`. */
  path: string;
  /** In commander's notation: `<name> [point]`; `<disk...>` for one or more. */
  arguments?: string;
  /** What each argument is, by its name. */
  argumentHelp?: Record<string, string>;
  summary: string;
  /** Paragraphs below the summary on the help page. */
  details?: string;
  options?: Option[];
  examples: readonly string[];
  /** Runs it: the exit code, 0 when none is given. Arguments that were left out are undefined. */
  run(context: CommandContext, args: readonly string[], options: Record<string, unknown>): Promise<number | void>;
}

/** Checks that `options` holds what the definition's own options can give, and nothing else has to be cast. */
export function define<Options extends object>(
  definition: Omit<CommandDefinition, 'run'> & {
    run(context: CommandContext, args: readonly string[], options: Options): Promise<number | void>;
  },
): CommandDefinition {
  return { ...definition, run: (context, args, options) => definition.run(context, args, options as Options) };
}

export function option(flags: string, description: string): Option {
  return new Option(flags, description);
}

export function integer(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= most))
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    return value;
  };
}

/** One of a few numbers. */
export function choice(...numbers: number[]): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!numbers.includes(value)) throw new InvalidArgumentError(`It must be ${numbers.join(' or ')}.`);
    return value;
  };
}

export function positive(text: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : 0;
  if (value <= 0) throw new InvalidArgumentError('It must be a number above 0.');
  return value;
}

/** For an option that may be given several times. */
export function collect(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text];
}

/** Sizes as people write them: `500`, `64K`, `10M`, `2G` (powers of 1024). */
export function size(text: string): number {
  const match = /^(\d+)\s*([kmgt]?)(i?b)?$/i.exec(text.trim());
  if (match === null) throw new InvalidArgumentError('It must be a size such as 500, 64K, 10M or 2G.');
  return Number(match[1]) * 1024 ** ' kmgt'.indexOf((match[2] ?? '').toLowerCase() || ' ');
}

const EXIT_CODES = `Exit codes:
  0 done, or yes                      3 refused in this state or on this side
  1 no (differs, not healthy)         4 peer not reachable or not authorised
  2 wrong usage or bad input          5 I/O failed        130 interrupted`;

/** Adds the command below `program`, with the groups its path names; `onRun` gets what commander parsed. */
export function addCommand(
  program: Command,
  definition: CommandDefinition,
  onRun: (definition: CommandDefinition, args: readonly string[], options: Record<string, unknown>) => Promise<void>,
): Command {
  const words = definition.path.split(' ');
  const name = words.pop()!;
  const parent = words.reduce(
    (command, word) => command.commands.find((known) => known.name() === word) ?? command.command(word),
    program,
  );
  const command = parent.command(name).summary(definition.summary);
  command.description(
    definition.details === undefined ? definition.summary : `${definition.summary}\n\n${definition.details}`,
  );
  for (const word of definition.arguments?.split(' ') ?? []) {
    command.argument(word, definition.argumentHelp?.[word.replace(/[<>[\].]/g, '')] ?? '');
  }
  for (const each of definition.options ?? []) command.addOption(each);
  const examples = definition.examples.map((example) => `  $ understudy ${example}`).join('\n');
  command.addHelpText('after', `\nExamples:\n${examples}\n\n${EXIT_CODES}`);
  command.action((...given: unknown[]) => {
    const args = given
      .slice(0, -2)
      .flat()
      .filter((value) => value !== undefined) as string[];
    return onRun(definition, args, command.opts());
  });
  return command;
}
