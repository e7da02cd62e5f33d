/** Disk images without any server: look into them, compare them, make them equal. */

import { ancestryOf, identityOf } from '../../disk/images/image-facts.ts';
import { probeDisk } from '../../disk/open-disk.ts';
import { EXIT_DIFFERENT, UnderstudyError } from '../../model/errors.ts';
import { parsePlace } from '../../resync/compare/remote-shell.ts';
import { asyncStdout, diskCompare, diskSync, serveStdio } from '../../resync/disk-sync.ts';
import type { CompareProgress, DiskSyncOptions } from '../../resync/disk-sync.ts';
import { define, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import type { CommandContext } from '../context.ts';
import { bytes, duration, orNothing } from '../format.ts';
import type { ProgressView } from '../progress.ts';

interface PlaceOptions {
  rsh?: string;
  remoteCommand?: string;
  diff?: string;
  lock: boolean;
}

const PLACES = 'a path, an NBD URI, or [USER@]HOST:PATH';
const PLACE_DETAILS =
  `A place is ${PLACES}. The last is reached through ssh, or through --rsh as rsync does; ` +
  `understudy must be installed there, too.`;

const placeOptions = () => [
  option('--rsh <command>', 'remote shell to use instead of ssh, such as "ssh -p 2222"'),
  option('--remote-command <command>', 'how understudy is called on the other host').default('understudy'),
  option('--no-lock', 'do not keep other programs from the disks, nor mind those that use them'),
];

const DIFF_DETAILS =
  `With --diff the disk itself is only read: what differs goes into FILE, and FILE over the disk is what SOURCE is. Over a vhd or vhdx FILE ` +
  `is a differencing image, and gets its ending (.avhd, .avhdx). FILE lies on the host of the disk.`;

export const diskCommands: CommandDefinition[] = [
  define<{ allowParentOutside?: true }>({
    path: 'disk info',
    arguments: '<file>',
    argumentHelp: { file: 'an image file, a block device, or an NBD URI' },
    summary: 'Show format, sizes and geometry of a disk.',
    details: 'Only reads; works beside a running virtual machine.',
    examples: ['disk info web1.vhdx', "disk info 'nbd://localhost/web1' --json | jq .virtualSize"],
    options: [option('--allow-parent-outside', 'follow parents to files outside of the folder of the image that names them')],
    async run({ output, diskLocation, surroundings }, [file], options) {
      const { location, ...facts } = await probeDisk(diskLocation(file!), { clock: surroundings.clock, ...options });
      const ancestry = await ancestryOf(location, facts.format, options);
      const info = { ...ancestry, identity: await identityOf(location, facts.format, options), ...facts };
      output.print(info, ({ geometry }) =>
        output.list([
          ['Format', `${info.format} (${info.variant})`],
          ['Size', `${bytes(info.virtualSize)} (${info.virtualSize} bytes)`],
          ['Sectors', `${info.logicalSectorSize} bytes, physical ${info.physicalSectorSize}`],
          [
            'Geometry',
            geometry === null ? '-' : `${geometry.cylinders}/${geometry.heads}/${geometry.sectorsPerTrack} (C/H/S)`,
          ],
          ['Parent', orNothing(info.parent)],
          ...(info.dirtyLog ? [['Log', 'not replayed yet: it was not closed cleanly'] as const] : []),
        ]),
      );
    },
  }),
  define<PlaceOptions>({
    path: 'disk compare',
    arguments: '<a> <b>',
    argumentHelp: { a: PLACES, b: PLACES },
    summary: 'Tell whether two disks are equal, and where they differ first.',
    details:
      `Exit code 1 when they differ. Holes count as zeroes and are not read. Different sizes are bad ` +
      `input (2).\n${PLACE_DETAILS}`,
    options: [option('--diff <file>', 'see B through this diff disk, which `disk sync --diff` has made'), ...placeOptions()],
    examples: ['disk compare web1.raw copy.raw', 'disk compare web1.raw root@munich:/srv/replicas/web1.raw'],
    async run(context, [a, b], options) {
      const result = await withCompareProgress(context, (show) =>
        diskCompare(place(a!, context), place(b!, context), compareOptions(context, b!, options, show)),
      );
      context.output.print(result, () =>
        context.output.list([
          ['Equal', result.equal ? 'yes' : 'NO'],
          ['Compared', `${bytes(result.comparedBytes)} in ${duration(result.seconds)}`],
          ['Differing', bytes(result.differingBytes)],
          ...(result.firstDifference === null
            ? []
            : [['First difference', `byte ${result.firstDifference}`] as const]),
        ]),
      );
      return result.equal ? 0 : EXIT_DIFFERENT;
    },
  }),
  define<PlaceOptions & { dryRun?: true }>({
    path: 'disk sync',
    arguments: '<source> <dest>',
    argumentHelp: { source: PLACES, dest: `${PLACES}; created as a sparse raw file when it is missing` },
    summary: 'Make DEST equal to SOURCE: compare both, and send only what differs.',
    details:
      `Neither disk may be in use. Run it again after an interruption: what is equal by then is not ` +
      `sent again.\n${DIFF_DETAILS} \`disk merge FILE --into DEST\` makes it final; \`disk diff DEST NEW.qcow2 --from FILE\` shows it to QEMU.\n${PLACE_DETAILS}`,
    options: [
      option('--diff <file>', 'leave DEST as it is, and write into this diff disk over it'),
      option('--dry-run', 'only tell how different they are, and what a sync would send at most; nothing is written'), ...placeOptions(),
    ],
    examples: ['disk sync web1.raw copy.raw', 'disk sync web1.raw copy.raw --diff copy.diff', "disk sync web1.raw root@munich:/srv/web1.raw --rsh 'ssh -p 2222'"],
    async run(context, [source, dest], { dryRun, ...options }) {
      const result = await withCompareProgress(context, (show) =>
        diskSync(place(source!, context), place(dest!, context), {
          ...compareOptions(context, dest!, options, show),
          dryRun: dryRun === true,
        }),
      );
      context.output.print(result, () =>
        context.output.list([
          ['Were equal', result.equal ? 'yes' : 'no'],
          ['Compared', `${bytes(result.comparedBytes)} in ${duration(result.seconds)}`],
          ['Differing', bytes(result.differingBytes)],
          dryRun === true
            ? ['Would send', `at most ${bytes(result.wouldSendBytes ?? 0)}; nothing was written`]
            : ['Sent', `${bytes(result.sentBytes)}, ${bytes(result.wireBytes)} on the wire`],
        ]),
      );
    },
  }),
  define<{ stdio?: true; diff?: string; lock: boolean }>({
    path: 'disk serve',
    arguments: '<file>',
    argumentHelp: { file: 'the disk on this side' },
    summary: 'Answer a compare or sync of another host. That host starts this by itself.',
    options: [
      option('--stdio', 'over standard input and output').makeOptionMandatory(),
      option('--diff <file>', 'a diff disk over it, to be written in its place'),
      option('--no-lock', 'do not keep other programs from the disk'),
    ],
    examples: ['disk serve --stdio /srv/web1.raw'],
    async run({ diskLocation, path, surroundings: { stdin, stdout }, signal }, [file], { lock, diff }) {
      await serveStdio(stdin, stdout === process.stdout ? asyncStdout() : stdout, diskLocation(file!), {
        signal,
        lock,
        ...(diff === undefined ? {} : { diff: path(diff) }),
      });
    },
  }),
];

/** Relative paths on this host become absolute; places on another host stay as they are. */
function place(given: string, { diskLocation }: CommandContext): string {
  if (given === '')
    throw new UnderstudyError('usage', 'DISK_PLACE_INVALID', 'the name of a disk is empty', `Give ${PLACES}.`);
  return parsePlace(given).kind === 'remote' ? given : diskLocation(given);
}

function compareOptions(
  { surroundings, signal, path }: CommandContext,
  second: string,
  { rsh, remoteCommand, diff, lock }: PlaceOptions,
  show: (progress: CompareProgress) => void,
): DiskSyncOptions {
  return {
    clock: surroundings.clock,
    signal,
    lock,
    onProgress: show,
    ...(diff === undefined ? {} : { diff: parsePlace(second).kind === 'remote' ? diff : path(diff) }),
    ...(rsh === undefined ? {} : { rsh }),
    ...(remoteCommand === undefined ? {} : { remoteCommand }),
  };
}

function withCompareProgress<Value>(
  context: CommandContext,
  work: (show: (progress: CompareProgress) => void) => Promise<Value>,
): Promise<Value> {
  const { clock } = context.surroundings;
  const start = clock.monotonic();
  return context.withProgress((view) =>
    work((progress) => showCompare(view, progress, (clock.monotonic() - start) / 1000)),
  );
}

function showCompare(
  view: ProgressView,
  { phase, scannedBytes, totalBytes }: CompareProgress,
  seconds: number,
): void {
  const rate = seconds > 0 ? scannedBytes / seconds : 0;
  const known = rate > 0 ? { rate, etaSeconds: Math.max(0, totalBytes - scannedBytes) / rate } : {};
  view.update({ phase, done: scannedBytes, total: totalBytes, unit: 'bytes', ...known });
}
