/** Makes, checks, copies and changes disk images. All of these work on files that nobody else has open. */
import { ancestryOf, chainOf } from '../../disk/images/image-facts.ts';
import { checkImage, compactImage, createChild, mergeImage, resizeImage, type ChangeOptions } from '../../disk/images/change-image.ts';
import { convertImage } from '../../disk/images/convert-image.ts';
import { createImage, formatOfName, type NewImage } from '../../disk/images/create-image.ts';
import { exportDiff } from '../../disk/images/export-diff.ts';
import { mergeDiff } from '../../disk/images/merge-diff.ts';
import { probeDisk } from '../../disk/open-disk.ts';
import type { DiskFormat } from '../../disk/virtual-disk.ts';
import { EXIT_DIFFERENT } from '../../model/errors.ts';
import { choice, define, option, size } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import type { CommandContext } from '../context.ts';
import { bytes, duration, orNothing } from '../format.ts';

type ImageFormat = Exclude<DiskFormat, 'nbd'>;

interface ParentChoice {
  allowParentOutside?: true;
}

interface ShapeChoice {
  format?: ImageFormat;
  variant?: 'fixed' | 'dynamic';
  blockSize?: number;
  sectorSize?: number;
}

const FORMATS = ['raw', 'vhd', 'vhdx', 'qcow2'];
const IMAGE = 'an image file';
const LOCKED = 'Nobody may have the image open.';

const formatOption = (what: string) => option('--format <format>', `${what}: ${FORMATS.join(', ')}`).choices(FORMATS);
const parentOption = () => option('--allow-parent-outside', 'follow parents to files outside of the folder of the image that names them');
const shapeOptions = () => [
  option('--variant <variant>', 'of vhd and vhdx: fixed or dynamic').choices(['fixed', 'dynamic']),
  option('--block-size <size>', 'of dynamic vhd (default 2M) and vhdx (default 32M)').argParser(size),
  option('--sector-size <bytes>', 'logical sectors of a vhdx: 512 or 4096').argParser(choice(512, 4096)),
];

export const imageCommands: CommandDefinition[] = [
  define<ShapeChoice & { size: number }>({
    path: 'disk create',
    arguments: '<file>',
    argumentHelp: { file: 'the new image; its end says the format unless --format does' },
    summary: 'Make an empty disk image.',
    options: [
      option('--size <size>', 'what the guest sees, such as 10G').argParser(size).makeOptionMandatory(),
      formatOption('of the image'), ...shapeOptions(),
    ],
    examples: ['disk create web1.vhdx --size 40G', 'disk create old.vhd --size 10G --variant fixed'],
    async run(context, [file], { size: wanted, ...shape }) {
      const path = context.path(file!);
      await createImage(path, { ...newImage(path, shape), size: wanted });
      await printFacts(context, path);
    },
  }),
  define<ParentChoice & { repair?: true; format?: ImageFormat }>({
    path: 'disk check',
    arguments: '<file>',
    argumentHelp: { file: IMAGE },
    summary: 'Look for damage in the structures of an image, and mend it if asked.',
    details: `Exit code 1 when there is an error that stays. What a guest has stored is not looked at. --repair mends what can be mended without ` +
      `guessing: damaged copies of footers, headers and tables, and a log that was not replayed. ${LOCKED}`,
    options: [option('--repair', 'mend what can be mended'), formatOption('read it as'), parentOption()],
    examples: ['disk check web1.vhdx', 'disk check web1.vhdx --repair --json'],
    async run(context, [file], options) {
      const result = await working(context, 'checking', (work) => checkImage(context.diskLocation(file!), { ...work, ...options }));
      context.output.print(result, ({ ok, findings }) =>
        `${ok ? 'No errors.' : 'There are errors.'}${findings.map(({ severity, what }) => `\n${severity}: ${what}`).join('')}`);
      return result.ok ? 0 : EXIT_DIFFERENT;
    },
  }),
  define<ShapeChoice & ParentChoice & { from?: ImageFormat }>({
    path: 'disk convert',
    arguments: '<source> <dest>',
    argumentHelp: { source: `${IMAGE}, a block device, or an NBD URI`, dest: 'the new image; its end says the format unless --format does' },
    summary: 'Copy a disk into a new image of any format.',
    details: `Holes stay holes; a chain of differencing images becomes one. A vhdx keeps the sector sizes of a vhdx, a vhd the geometry of a vhd. ` +
      `qcow2 is read and written by qemu-img. An interruption leaves nothing behind. Nobody may be writing to the source.`,
    options: [formatOption('of the new image'), option('--from <format>', 'read the source as this').choices(FORMATS), ...shapeOptions(), parentOption()],
    examples: ['disk convert web1.raw web1.vhdx', 'disk convert web1_ABC.avhdx web1.qcow2 --format qcow2'],
    async run(context, [source, dest], { from, allowParentOutside, ...shape }) {
      const path = context.path(dest!);
      const start = context.surroundings.clock.monotonic();
      const { virtualSize } = await working(context, 'copying', (work) => convertImage(context.diskLocation(source!), path, {
        ...work, to: newImage(path, shape), ...(from && { from }), ...(allowParentOutside && { allowParentOutside }) }));
      const { format, variant } = await probeDisk(path, shape.format === 'raw' || formatOfName(path) === 'raw' ? { format: 'raw' } : {});
      const result = { virtualSize, seconds: secondsSince(context, start), format, variant };
      context.output.print(result, () => `${bytes(virtualSize)} copied into a ${format} image (${variant}) in ${duration(result.seconds)}.`);
    },
  }),
  define<ParentChoice & { format?: ImageFormat }>({
    path: 'disk resize',
    arguments: '<file> <size>',
    argumentHelp: { file: IMAGE, size: 'the new size, such as 80G' },
    summary: 'Make an image larger; what is new reads as zeroes.',
    details: `A disk never becomes smaller, and one with differencing children keeps its size. ${LOCKED} The disk of a VM is resized with \`vm resize\`.`,
    options: [formatOption('read it as'), parentOption()],
    examples: ['disk resize web1.vhdx 80G'],
    async run(context, [file, wanted], options) {
      const path = context.diskLocation(file!);
      await working(context, 'resizing', (work) => resizeImage(path, size(wanted!), { ...work, ...options }));
      await printFacts(context, path, options);
    },
  }),
  define<ParentChoice & { format?: ImageFormat }>({
    path: 'disk compact',
    arguments: '<file>',
    argumentHelp: { file: IMAGE },
    summary: 'Give back the space that an image does not need.',
    details: `Of vhd and vhdx blocks that hold nothing but zeroes go and the others close the gaps; a raw disk gets holes. A guest sees no change. ` +
      `An interruption leaves the same contents. ${LOCKED}`,
    options: [formatOption('read it as'), parentOption()],
    examples: ['disk compact web1.vhdx'],
    async run(context, [file], options) {
      const start = context.surroundings.clock.monotonic();
      const { before, after } = await working(context, 'compacting', (work) => compactImage(context.diskLocation(file!), { ...work, ...options }));
      const result = { beforeBytes: before, afterBytes: after, seconds: secondsSince(context, start) };
      context.output.print(result, () => `${bytes(before)} before, ${bytes(after)} now.`);
    },
  }),
  define<ParentChoice & { format?: ImageFormat; blockSize?: number; from?: string }>({
    path: 'disk diff',
    arguments: '<parent> <child>',
    argumentHelp: { parent: 'the image to build on; it must not be written from then on', child: 'the new differencing image, beside its parent' },
    summary: 'Make a differencing image: it holds what is written from now on, the parent stays as it is.',
    details: `Over vhd and vhdx it is a differencing image of the same format, named .avhd or .avhdx, which Hyper-V could merge. Over raw and qcow2 it ` +
      `is a qcow2 overlay for QEMU.\nWith --from it also takes what a diff disk of Understudy holds: of a failover, or of a resynchronization over a ` +
      `raw replica. Then another program sees what the server would serve, if the replica disk was all that lay below: not an older point, ` +
      `and no logs that waited. Stop what writes to the diff disk first.`,
    options: [
      option('--from <diff>', 'a .diff file of Understudy over this parent'),
      option('--block-size <size>', 'of the child: vhd 2M, vhdx 2M unless told').argParser(size),
      formatOption('read the parent as'), parentOption(),
    ],
    examples: ['disk diff web1.vhdx web1-test.avhdx', 'disk diff web1.raw web1-test.qcow2 --from web1.raw.failover.diff',
      'disk diff web1.vhdx web1-failover.avhdx --from web1.vhdx.failover.diff'],
    async run(context, [parent, child], { from, ...options }) {
      const path = context.path(child!);
      if (from === undefined) await createChild(context.diskLocation(parent!), path, options);
      else await working(context, 'copying', (work) => exportDiff(context.diskLocation(parent!), context.path(from), path, { ...work, ...options }));
      await printFacts(context, path, options);
    },
  }),
  define<ParentChoice & { keepChild?: true; into?: string; format?: ImageFormat }>({
    path: 'disk merge',
    arguments: '<child>',
    argumentHelp: { child: 'a differencing image, or with --into a diff disk of Understudy' },
    summary: 'Bring what a differencing image holds into its parent, and delete it.',
    details: `Refused while the parent has other children: the merge would break them. After an interruption child over parent reads as before; run it ` +
      `again to finish. Nobody may have one of the images open.\nA diff disk of \`disk sync --diff\` does not know its disk: name it with --into.`,
    options: [
      option('--into <disk>', 'the disk that this diff disk was made over'),
      option('--keep-child', 'leave the child; it is of no use any more'), formatOption('read it as'), parentOption(),
    ],
    examples: ['disk merge web1-test.avhdx', 'disk merge web1.diff --into web1.raw'],
    async run(context, [child], { into, ...options }) {
      const start = context.surroundings.clock.monotonic();
      const parent = await working(context, 'merging', (work) => into === undefined
        ? mergeImage(context.diskLocation(child!), { ...work, ...options })
        : mergeDiff(context.path(child!), context.diskLocation(into), { ...work, ...options }));
      const result = { parent, seconds: secondsSince(context, start) };
      context.output.print(result, () => `Merged into ${parent} in ${duration(result.seconds)}.`);
    },
  }),
  define<ParentChoice>({
    path: 'disk chain',
    arguments: '<file>',
    argumentHelp: { file: IMAGE },
    summary: 'List an image and the images it is built on, the base last.',
    details: 'Checks that each parent is the one that its child was made over. Only reads.',
    options: [parentOption()],
    examples: ['disk chain web1-test.avhdx'],
    async run(context, [file], options) {
      const links = await chainOf(context.diskLocation(file!), options);
      context.output.print(links, () => context.output.table(links.map(({ path, format, variant, virtualSize, identity }) => [
        ['File', path], ['Format', `${format} (${variant})`], ['Size', bytes(virtualSize)], ['Identity', orNothing(identity)]]), 'No image.'));
    },
  }),
];

function newImage(path: string, { format, variant, blockSize, sectorSize }: ShapeChoice): Omit<NewImage, 'size'> {
  return {
    format: format ?? formatOfName(path), ...(variant && { variant }), ...(blockSize !== undefined && { blockSize }),
    ...(sectorSize !== undefined && { logicalSectorSize: sectorSize }),
  };
}

async function printFacts(context: CommandContext, path: string, options: ParentChoice & { format?: ImageFormat } = {}): Promise<void> {
  const { format: _, ...parents } = options;
  const { location: __, ...facts } = await probeDisk(path, { clock: context.surroundings.clock, ...parents });
  const info = { path, ...facts, ...(await ancestryOf(path, facts.format, parents)) };
  context.output.print(info, () => context.output.list([
    ['File', path], ['Format', `${info.format} (${info.variant})`], ['Size', `${bytes(info.virtualSize)} (${info.virtualSize} bytes)`],
    ['Parent', orNothing(info.parent)],
  ]));
}

/** Shows how far long work is, and ends it when the user does. */
function working<Value>(context: CommandContext, phase: string, work: (options: Pick<ChangeOptions, 'progress' | 'signal'>) => Promise<Value>): Promise<Value> {
  const { signal } = context;
  return context.withProgress((view) => work({ signal, progress: (done, total) => view.update({ phase, done, total, unit: 'bytes' }) }));
}

const secondsSince = (context: CommandContext, start: number): number => (context.surroundings.clock.monotonic() - start) / 1000;
