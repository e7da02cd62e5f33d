/** What this host has, lacks, and how to mend it. */

import { EXIT_DIFFERENT } from '../../model/errors.ts';
import { define, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import { examineHost } from '../doctor.ts';
import { orNothing } from '../format.ts';
import type { Row } from '../output.ts';

export const doctorCommands: CommandDefinition[] = [
  define<{ check?: true }>({
    path: 'doctor',
    summary: 'Check this host: programs, file system, space, clock, server.',
    options: [option('--check', 'exit with 1 unless every check is ok')],
    examples: ['doctor', "doctor --json | jq '.[] | select(.ok | not)'"],
    async run(context, _args, { check }) {
      const checks = await examineHost(context);
      const rows = checks.map((each): Row => [
        ['Check', each.check],
        ['', each.ok ? 'ok' : 'missing'],
        ['Detail', each.detail],
        ['Remedy', each.ok ? '' : orNothing(each.remedy)],
      ]);
      context.output.print(checks, () => context.output.table(rows, ''));
      return check === true && checks.some(({ ok }) => !ok) ? EXIT_DIFFERENT : 0;
    },
  }),
];
