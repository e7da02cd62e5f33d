/** The parts of docs/operating/cli.md that are made from the program itself. */

import { z } from 'zod';
import { COMMANDS } from '../../src/cli/program.ts';
import type { CommandDefinition } from '../../src/cli/command.ts';
import { OPERATIONS } from '../../src/server/api/contract.ts';

/** One section per command, as its help page has it. */
export function commandReference(): string {
  return COMMANDS.map(describe).join('\n');
}

function describe({
  path,
  arguments: words,
  argumentHelp,
  summary,
  details,
  options,
  examples,
}: CommandDefinition): string {
  const usage = `understudy ${path}${words === undefined ? '' : ` ${words}`}`;
  const rows = [
    ...Object.entries(argumentHelp ?? {}).map(([name, help]) => [`\`${name}\``, help]),
    ...(options ?? []).map(({ flags, description, defaultValue }) => [
      `\`${flags}\``,
      typeof defaultValue === 'string' ? `${description} (default: ${defaultValue})` : description,
    ]),
  ];
  const table =
    rows.length === 0 ? [] : ['| | |', '|---|---|', ...rows.map(([name, help]) => `| ${name} | ${help} |`), ''];
  return [
    `### ${path}`,
    '',
    `\`${usage}\``,
    '',
    summary,
    ...(details === undefined ? [] : ['', details.replaceAll('\n', '\n\n')]),
    '',
    ...table,
    '```sh',
    ...examples.map((example) => `understudy ${example}`),
    '```',
    '',
  ].join('\n');
}

/** The fields of each operation's result; operations with the same ones share a row. */
export function fieldTable(): string {
  const byFields = Map.groupBy(Object.entries(OPERATIONS), ([, { result }]) =>
    fieldsOf(z.toJSONSchema(result, { io: 'output', unrepresentable: 'any' }) as Schema),
  );
  const rows = [...byFields].map(
    ([fields, operations]) => `| ${operations.map(([name]) => `\`${name}\``).join(', ')} | ${fields} |`,
  );
  return ['| operation | fields |', '|---|---|', ...rows, ''].join('\n');
}

interface Schema {
  type?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
}

/** `a`, `b`?, `c`[`d`, `e`]: a question mark where a field may be missing. */
function fieldsOf(schema: Schema): string {
  if (schema.anyOf !== undefined)
    return fieldsOf(schema.anyOf.find(({ properties }) => properties) ?? schema.anyOf[0]!);
  if (schema.type === 'array') return `[${fieldsOf(schema.items ?? {})}]`;
  return Object.entries(schema.properties ?? {})
    .map(([name, field]) => {
      const inner = field.type === 'array' || field.properties !== undefined ? fieldsOf(field) : '';
      const nested = inner === '[]' || inner === '' ? inner : field.type === 'array' ? inner : `{${inner}}`;
      return `\`${name}\`${schema.required?.includes(name) === true ? '' : '?'}${nested}`;
    })
    .join(', ');
}
