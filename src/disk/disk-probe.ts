/**
 * Recognises disk image formats by their magic numbers. Pure: the caller reads the first 64 KiB and the last 512 bytes.
 *
 * What a guest wrote into a raw disk may look like any format, so a guess is for the first time a disk is named;
 * afterwards the format is kept on record and opened as such.
 */
import type { DiskFormat } from './virtual-disk.ts';

export const PROBE_HEAD_BYTES = 64 * 1024;
export const PROBE_TAIL_BYTES = 512;

export type ProbedFormat =
  | { known: true; format: Exclude<DiskFormat, 'nbd'> }
  /** An image format that is only served through QEMU's tools; `name` is the one they use. */
  | { known: false; name: string };

const HEAD_MAGICS: { at: number; bytes: Buffer; found: ProbedFormat }[] = [
  { at: 0, bytes: Buffer.from('vhdxfile'), found: { known: true, format: 'vhdx' } },
  { at: 0, bytes: Buffer.from('QFI\xfb', 'latin1'), found: { known: true, format: 'qcow2' } },
  { at: 0, bytes: Buffer.from('KDMV'), found: { known: false, name: 'vmdk' } },
  { at: 0, bytes: Buffer.from('COWD'), found: { known: false, name: 'vmdk' } },
  { at: 0, bytes: Buffer.from('# Disk DescriptorFile'), found: { known: false, name: 'vmdk' } },
  { at: 0, bytes: Buffer.from('QED\0'), found: { known: false, name: 'qed' } },
  { at: 0x40, bytes: Buffer.of(0x7f, 0x10, 0xda, 0xbe), found: { known: false, name: 'vdi' } },
  { at: 0, bytes: Buffer.from('WithoutFreeSpace'), found: { known: false, name: 'parallels' } },
  { at: 0, bytes: Buffer.from('WithouFreSpacExt'), found: { known: false, name: 'parallels' } },
  // A dynamic VHD begins with a copy of its footer; this comes last because the footer at the end decides for fixed
  // ones.
  { at: 0, bytes: Buffer.from('conectix'), found: { known: true, format: 'vhd' } },
];
const VHD_FOOTER = Buffer.from('conectix');

/** `tail` is the end of the file; both may be shorter for small files. What is nothing else is raw. */
export function probeFormat(head: Buffer, tail: Buffer): ProbedFormat {
  for (const magic of HEAD_MAGICS) {
    if (head.subarray(magic.at, magic.at + magic.bytes.length).equals(magic.bytes)) return magic.found;
  }
  // A footer of 511 bytes was written by Virtual PC before 2004.
  const isVhd = [512, 511].some((size) => tail.subarray(-size).subarray(0, 8).equals(VHD_FOOTER));
  return { known: true, format: isVhd && tail.length >= 511 ? 'vhd' : 'raw' };
}
