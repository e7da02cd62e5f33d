/** Looking into tracking logs, without any server. */

import { describeLog } from '../../hrl/describe-log.ts';
import type { DescribedEntry, DescribedLog } from '../../hrl/describe-log.ts';
import { UnderstudyError, errnoOf } from '../../model/errors.ts';
import { define, integer, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import { time } from '../format.ts';
import type { Output, Row } from '../output.ts';

const ENTRIES_MAX = 1_000_000;

export const logCommands: CommandDefinition[] = [
  define<{ limit?: number }>({
    path: 'log show',
    arguments: '<file>',
    argumentHelp: { file: 'a tracking log (.hrl), of Understudy or of Hyper-V' },
    summary: 'Show header and entries of a tracking log. Needs no server.',
    details: 'A log that is still open is shown by its index file.',
    options: [
      option('--limit <count>', `show at most so many entries (default: ${ENTRIES_MAX})`).argParser(
        integer(0, ENTRIES_MAX),
      ),
    ],
    examples: ['log show disk0-000042.hrl', 'log show x.hrl --json | jq ".entries | length"'],
    async run({ output, path, surroundings, zone }, [file], { limit }) {
      const described = await describe(
        () => describeLog(surroundings.files, path(file!), limit ?? ENTRIES_MAX),
        path(file!),
      );
      output.print(described, () => logText(described, output, zone));
    },
  }),
];

/** A file that is no log, or no file, is bad input of the person who named it. */
async function describe(read: () => Promise<DescribedLog>, path: string): Promise<DescribedLog> {
  try {
    return await read();
  } catch (cause) {
    const remedy = 'Give the path of a .hrl file.';
    if (errnoOf(cause) === 'ENOENT')
      throw new UnderstudyError('usage', 'LOG_NOT_FOUND', `there is no file ${path}`, remedy, { cause });
    if (!(cause instanceof UnderstudyError) || cause.code !== 'LOG_INVALID') throw cause;
    throw new UnderstudyError('usage', cause.code, cause.message, cause.remedy, { cause });
  }
}

function logText({ state, header, entries, truncated }: DescribedLog, output: Output, zone: string): string {
  const fields = Object.entries(header).map(([name, value]) => [name, String(value)] as const);
  const rows = entries.map((entry) => entryRow(entry, zone));
  const more = truncated ? '\n… and more entries' : '';
  return `${output.list([['state', state], ...fields])}\n\n${output.table(rows, 'The log has no entries.')}${more}`;
}

function entryRow(entry: DescribedEntry, zone: string): Row {
  return [
    ['Operation', entry.operation],
    ['ByteOffset', String(entry.byteOffset)],
    ['Length', String(entry.length)],
    ['Time', time(entry.timestamp, zone)],
  ];
}
