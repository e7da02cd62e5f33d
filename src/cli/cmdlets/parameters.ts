/** The words after a cmdlet's name, bound to its parameters by the rules of PowerShell. */

import { UnderstudyError } from '../../model/errors.ts';
import { readArgument } from './values.ts';
import type { Argument, ParameterType } from './values.ts';
import { withPlainDashes } from './words.ts';
import type { Word } from './words.ts';

export type Parameter = {
  name: string;
  type: ParameterType;
  aliases?: readonly string[];
  /** Place among the words without a parameter name. */
  position?: number;
  /** Why it does nothing here: giving it is refused with this reason. */
  unsupported?: string;
  /** The only value that it may have here, with the reason. */
  only?: { value: Argument; why: string };
};

export type Bound = ReadonlyMap<string, Argument>;

const LOCAL_ONLY = 'a command works on its own host: run it there';

/** Every cmdlet takes these. */
export const COMMON_PARAMETERS: readonly Parameter[] = [
  { name: 'WhatIf', type: 'switch', aliases: ['wi'] },
  {
    name: 'Confirm',
    type: 'switch',
    aliases: ['cf'],
    only: { value: false, why: 'there is no prompt; try with -WhatIf first' },
  },
  { name: 'ComputerName', type: 'string', unsupported: LOCAL_ONLY },
  { name: 'CimSession', type: 'string', unsupported: LOCAL_ONLY },
  { name: 'Credential', type: 'string', unsupported: LOCAL_ONLY },
  { name: 'ErrorAction', type: 'string', aliases: ['ea'], unsupported: 'the exit code tells of errors' },
  { name: 'Verbose', type: 'switch', aliases: ['vb'] },
];

/** Throws UnderstudyError usage PARAMETER_UNKNOWN, PARAMETER_AMBIGUOUS, PARAMETER_TWICE, PARAMETER_UNSUPPORTED, ARGUMENT_… */
export function bind(
  cmdlet: string,
  parameters: readonly Parameter[],
  words: readonly Word[],
  moment: { now: number; zone: string },
): Bound {
  const bound = new Map<string, Argument>();
  const all = [...parameters, ...COMMON_PARAMETERS];
  const set = (parameter: Parameter, text: string, parts: readonly string[]): void => {
    if (bound.has(parameter.name)) {
      throw new UnderstudyError(
        'usage',
        'PARAMETER_TWICE',
        `-${parameter.name} is given more than once`,
        'Give it once; several values as a,b.',
      );
    }
    bound.set(
      parameter.name,
      checked(
        cmdlet,
        parameter,
        readArgument({ parameter: parameter.name, type: parameter.type, text, parts, ...moment }),
      ),
    );
  };
  const positional: Word[] = [];
  for (let at = 0; at < words.length; at++) {
    const word = words[at] as Word;
    const named = parameterIn(word);
    if (named === null) {
      positional.push(word);
      continue;
    }
    const parameter = findParameter(cmdlet, all, named.name);
    if (named.value !== null) set(parameter, named.value, named.parts);
    else if (parameter.type === 'switch' && !named.colon) set(parameter, '$true', ['$true']);
    else {
      const next = words[at + 1];
      if (next === undefined || parameterIn(next) !== null) {
        throw new UnderstudyError(
          'usage',
          'ARGUMENT_MISSING',
          `-${parameter.name} has no value`,
          `Give it as: -${parameter.name} VALUE`,
        );
      }
      set(parameter, next.text, next.parts);
      at += 1;
    }
  }
  bindPositional(cmdlet, parameters, positional, bound, set);
  return bound;
}

/** `-Name`, `-Name:` or `-Name:value`, with any dash. A number such as -5 is a value. */
function parameterIn(word: Word): { name: string; colon: boolean; value: string | null; parts: string[] } | null {
  if (word.quoted) return null;
  const match = /^-([a-z_]\w*)(:?)([\s\S]*)$/i.exec(withPlainDashes(word.text.slice(0, 1)) + word.text.slice(1));
  if (match === null) return null;
  const [, name = '', colon, rest = ''] = match;
  if (rest !== '' && colon === '') return null;
  const parts = [(word.parts[0] ?? '').slice(name.length + 2), ...word.parts.slice(1)];
  return { name, colon: colon !== '', value: rest === '' ? null : rest, parts };
}

function bindPositional(
  cmdlet: string,
  parameters: readonly Parameter[],
  words: readonly Word[],
  bound: Bound,
  set: (parameter: Parameter, text: string, parts: readonly string[]) => void,
): void {
  const free = parameters
    .filter(({ position }) => position !== undefined)
    .sort((a, b) => (a.position ?? 0) - (b.position ?? 0))
    .filter(({ name }) => !bound.has(name));
  words.forEach((word, index) => {
    const parameter = free[index];
    if (parameter === undefined) {
      throw new UnderstudyError(
        'usage',
        'ARGUMENT_UNEXPECTED',
        `${cmdlet} has no parameter for '${word.text}'`,
        `Name the parameter that it belongs to, and quote values that hold blanks. ${cmdlet} takes: ${listed(parameters)}.`,
      );
    }
    set(parameter, word.text, word.parts);
  });
}

/** By exact name or alias, else by a prefix that fits one parameter only. Any case. */
function findParameter(cmdlet: string, parameters: readonly Parameter[], given: string): Parameter {
  const wanted = given.toLowerCase();
  const names = ({ name, aliases = [] }: Parameter): string[] => [name, ...aliases];
  const exact = parameters.find((parameter) => names(parameter).some((name) => name.toLowerCase() === wanted));
  if (exact !== undefined) return exact;
  const fits = (name: string): boolean => name.toLowerCase().startsWith(wanted);
  const fitting = parameters.filter((parameter) => names(parameter).some(fits));
  const [only] = fitting;
  if (only !== undefined && fitting.length === 1) return only;
  if (fitting.length > 1) {
    throw new UnderstudyError(
      'usage',
      'PARAMETER_AMBIGUOUS',
      // By the name that fits, and also those that do nothing here: who means one of them learns it from its own refusal.
      `-${given} could be ${fitting.map((parameter) => `-${names(parameter).find(fits)}`).join(', ')}`,
      'Write more of its name.',
    );
  }
  throw new UnderstudyError(
    'usage',
    'PARAMETER_UNKNOWN',
    `${cmdlet} has no parameter -${given}`,
    `It takes: ${listed(parameters)}.`,
  );
}

function listed(parameters: readonly Parameter[]): string {
  return parameters
    .filter(({ unsupported }) => unsupported === undefined)
    .map(({ name }) => `-${name}`)
    .join(', ');
}

function checked(cmdlet: string, { name, unsupported, only }: Parameter, argument: Argument): Argument {
  if (unsupported !== undefined) {
    throw new UnderstudyError(
      'usage',
      'PARAMETER_UNSUPPORTED',
      `-${name} of ${cmdlet} is not available: ${unsupported}`,
      `Leave -${name} out.`,
    );
  }
  if (only !== undefined && argument !== only.value) {
    throw new UnderstudyError(
      'usage',
      'PARAMETER_UNSUPPORTED',
      `-${name} of ${cmdlet} can only be ${String(only.value)}: ${only.why}`,
      `Leave -${name} out.`,
    );
  }
  return argument;
}
