/**
 * The primary's end of initial replication by external media: the disks become images in a folder while the guest goes on
 * writing.
 *
 * Invariants
 * - As for the copy over the network (initial-sender.ts): tracking began before the first byte was read, so what changes
 * under the
 *   copy is in the logs from `firstEpoch` on.
 * - An image has its final name, and is in the manifest, only when it is whole and durable. After an interruption the images in a
 *   manifest of the same token stay; the others are made again.
 * - `consistentFrom` enters the manifest last: without it the replica takes nothing.
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { UnderstudyError } from '../model/errors.ts';
import type { Compute, Files, OpenFile } from '../model/ports.ts';
import type { DiskRecord, InitialReplication, VmRecord } from '../model/records.ts';
import { isZero } from '../model/zero-bytes.ts';
import {
  exportFolderOf, ImageDigest, onMedium, piecesOf, readManifest, writeManifest, type ExportedImage, type ExportManifest,
} from './export-folder.ts';
import type { CopyProgress } from './initial-sender.ts';

interface ExportPorts {
  files: Files;
  compute: Compute;
}

type Source = { record: DiskRecord; disk: Pick<VirtualDisk, 'read' | 'extents' | 'virtualSize'> };

/**
 * Makes the VM's folder inside `folder`, and refuses one that holds something else than an export that was never finished.
 * `token`: of the run that goes on; null before it has begun.
 * @throws EXPORT_FOLDER_IN_USE, EXPORT_FOLDER_UNUSABLE
 */
export async function prepareExportFolder(
  { files, compute }: ExportPorts, vm: Pick<VmRecord, 'name' | 'vmId'>, folder: string, token: string | null,
): Promise<ExportManifest | null> {
  const path = exportFolderOf(vm, folder);
  await onMedium(path, files.makeFolder(path));
  const inUse = (what: string) => new UnderstudyError('state', 'EXPORT_FOLDER_IN_USE', `${path} holds ${what}`,
    'Remove that folder if it is not needed any more, or name another one; after an error then resume: understudy resume NAME');
  const manifest = await readManifest(files, compute, path);
  if (manifest === null) {
    const names = await onMedium(path, files.list(path));
    // A crash before the first manifest leaves no more than a part of it.
    if (names.some((name) => name !== 'manifest.json.new')) throw inUse(`files that are no export: ${names.slice(0, 3).join(', ')}`);
    return null;
  }
  if (manifest.token === token) return manifest;
  if (manifest.consistentFrom !== null) {
    throw inUse(`an export of ${manifest.createdAt} (run ${manifest.token}${token === null ? '' : `, this is run ${token}`})`);
  }
  return null;
}

/** Makes the images of all disks; resolves when they are durable. `consistentFrom` is still to be set by `finishExport`. */
export async function writeExport(
  ports: ExportPorts & { now: () => number }, vm: VmRecord, initial: InitialReplication, sources: Source[],
  options: { signal: AbortSignal; progress(progress: CopyProgress): void },
): Promise<ExportManifest> {
  const { files, compute } = ports;
  const folder = exportFolderOf(vm, initial.folder!);
  let manifest = await prepareExportFolder(ports, vm, initial.folder!, initial.token);
  if (manifest === null) {
    manifest = { version: 1, vmId: vm.vmId, name: vm.name, token: initial.token, firstEpoch: initial.firstEpoch, consistentFrom: null,
      createdAt: new Date(ports.now()).toISOString(), disks: [] };
    await writeManifest(files, compute, folder, manifest);
  }
  const totalBytes = sources.reduce((sum, { disk }) => sum + disk.virtualSize, 0);
  const progress: CopyProgress = { doneBytes: 0, totalBytes, sentBytes: 0, wireBytes: 0 };
  for (const source of sources) {
    const { diskId } = source.record;
    if (manifest.disks.some((image) => image.diskId === diskId)) {
      progress.doneBytes += source.disk.virtualSize;
      continue;
    }
    const image = await writeImage(ports, folder, source, progress, options);
    manifest = { ...manifest, disks: [...manifest.disks, image] };
    options.signal.throwIfAborted();
    await writeManifest(files, compute, folder, manifest);
  }
  return manifest;
}

/** From here on the export can be imported. */
export async function finishExport(ports: ExportPorts, folder: string, manifest: ExportManifest, consistentFrom: number): Promise<void> {
  await writeManifest(ports.files, ports.compute, folder, { ...manifest, consistentFrom });
}

async function writeImage(
  ports: ExportPorts, folder: string, { record, disk }: Source, progress: CopyProgress,
  options: { signal: AbortSignal; progress(progress: CopyProgress): void },
): Promise<ExportedImage> {
  const { files, compute } = ports;
  const fileName = `${record.diskId}.raw`;
  const path = `${folder}/${fileName}`;
  await onMedium(folder, files.remove(`${path}.part`));
  const file = await onMedium(folder, files.open(`${path}.part`, 'create'));
  let copied: { bytes: number; digest: string };
  try {
    await onMedium(folder, file.truncate(disk.virtualSize));
    copied = await copyInto(file, compute, folder, disk, progress, options);
    await onMedium(folder, file.datasync());
  } finally {
    await file.close();
  }
  await onMedium(folder, files.rename(`${path}.part`, path));
  await onMedium(folder, files.syncFolder(folder));
  return { diskId: record.diskId, fileName, virtualSize: disk.virtualSize, ...copied };
}

async function copyInto(
  file: OpenFile, compute: Compute, folder: string, disk: Source['disk'], progress: CopyProgress,
  options: { signal: AbortSignal; progress(progress: CopyProgress): void },
): Promise<{ bytes: number; digest: string }> {
  const digest = new ImageDigest(compute);
  let bytes = 0;
  for await (const { offset, length, hole } of piecesOf(disk)) {
    options.signal.throwIfAborted();
    progress.doneBytes += length;
    if (hole) {
      digest.addHole(length);
      continue;
    }
    const data = new Uint8Array(length);
    await disk.read(data, offset);
    digest.add(data);
    if (!isZero(data)) {
      await onMedium(folder, file.write([data], offset));
      bytes += length;
      progress.sentBytes += length;
    }
    options.progress(progress);
  }
  options.progress(progress);
  return { bytes, digest: digest.hex() };
}
