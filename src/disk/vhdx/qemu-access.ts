import { UnderstudyError } from '../../model/errors.ts';
import type { Files } from '../../model/ports.ts';
import type { DiskFormat } from '../virtual-disk.ts';
import { geometryBytes, GEOMETRY_LARGEST, sameGeometry } from '../vhd/geometry.ts';
import { childrenOfVhd } from '../vhd/merge.ts';
import { inspectVhd } from '../vhd/vhd-image.ts';
import type { VhdImage } from '../vhd/vhd-image.ts';
import { childrenOfVhdx } from './merge.ts';
import { inspectVhdx } from './open.ts';

/** What to give to `-f` of a QEMU tool. It is always given: a guest can make a raw disk look like anything. */
export type QemuFormat = 'raw' | 'qcow2' | 'vpc' | 'vhdx';

/**
 * The one place that decides whether a QEMU tool may open an image file. QEMU reads a differencing VHD as if it had no
 * parent, without a word; it refuses a differencing VHDX; replaying a VHDX log it changes the identity that children name;
 * and of some VHDs it takes the size from the geometry.
 * @throws UnderstudyError DISK_NOT_FOR_QEMU with the reason
 */
export async function qemuFormatOf(
  path: string,
  format: DiskFormat,
  files: Files,
  options: { write: boolean },
): Promise<QemuFormat> {
  if (format === 'raw' || format === 'qcow2') return format;
  if (format === 'nbd') throw notForQemu(path, 'it is no file');
  if (format === 'vhd') {
    const image = await inspectVhd(path, files);
    if (image.variant === 'differencing') throw notForQemu(path, 'QEMU reads a differencing VHD without its parent');
    const seen = sizeForQemu(image);
    if (seen !== image.virtualSize) throw notForQemu(path, `QEMU would see ${seen} bytes instead of ${image.virtualSize}`);
    if (options.write) assertNoChildren(path, await childrenOfVhd(path, files));
    return 'vpc';
  }
  const image = await inspectVhdx(path, files);
  if (image.variant === 'differencing') throw notForQemu(path, 'QEMU cannot read a differencing VHDX');
  if (image.pendingLog.length > 0) throw notForQemu(path, 'its log has to be replayed first');
  if (options.write) assertNoChildren(path, await childrenOfVhdx(path, files));
  return 'vhdx';
}

/** The rule of QEMU 7.2: these creators mean their size field, all others their geometry unless it is the largest. */
function sizeForQemu({ footer }: VhdImage): number {
  const bySize =
    ['win ', 'qem2', 'd2v\0', 'CTXS', 'tap\0'].includes(footer.creatorApp) ||
    sameGeometry(footer.geometry, GEOMETRY_LARGEST);
  return bySize ? footer.currentSize : geometryBytes(footer.geometry);
}

function assertNoChildren(path: string, children: readonly string[]): void {
  if (children.length > 0) throw notForQemu(path, `it is the parent of ${children.join(', ')}, which a write would break`);
}

function notForQemu(path: string, why: string): UnderstudyError {
  return new UnderstudyError(
    'state',
    'DISK_NOT_FOR_QEMU',
    `${path} must not be opened by QEMU's tools: ${why}`,
    'Serve it over NBD with Understudy, and give the NBD address to the tool.',
  );
}
