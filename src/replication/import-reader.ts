/**
 * The replica's end of initial replication by external media: takes the images of an export as new replica disks.
 *
 * Invariants
 * - Nothing of the replica changes before every image has been copied, its digest has matched, and it is durable. Then the files
 *   take their names and the copy becomes the baseline, as at the end of a copy over the network (initial-receiver.ts).
 * - After an interruption the images whose cursor is at their end are not copied again.
 */
import type { VirtualDisk } from '../disk/virtual-disk.ts';
import { errnoOf, messageOf, UnderstudyError } from '../model/errors.ts';
import { replicatedDisks, type DiskRecord, type InitialReplication } from '../model/records.ts';
import { isZero } from '../model/zero-bytes.ts';
import {
  exportFolderOf, ImageDigest, onMedium, piecesOf, readManifest, type ExportedImage, type ExportManifest,
} from './export-folder.ts';
import { incomingPath } from './initial-receiver.ts';
import type { ReplicaVm } from './replica-vm.ts';
import type { ReplicationPorts } from './replication-ports.ts';

export interface ImportOptions {
  signal: AbortSignal;
  /** Bytes of the disks that are decided, holes included. */
  progress(done: number, total: number, disk: string): void;
}

/**
 * `from`: the folder of the VM, or the one that the user named to the export. Resolves when the replica has its baseline.
 * Repeatable.
 * @throws EXPORT_NOT_FOUND, EXPORT_DAMAGED, EXPORT_INCOMPLETE, EXPORT_OF_OTHER_VM, EXPORT_NOT_EXPECTED, EXPORT_OUTDATED,
 * EXPORT_DISKS_DIFFER, DISK_SIZE_MISMATCH, REPLICA_STORAGE_FULL
 */
export async function importExport(ports: ReplicationPorts, vm: ReplicaVm, from: string, options: ImportOptions): Promise<void> {
  const { folder, manifest } = await findExport(ports, vm, from);
  const { token } = checkRun(vm, manifest, folder);
  const images = await checkImages(ports, vm, manifest, folder);
  await checkSpace(ports, vm, images);
  const total = images.reduce((sum, { record }) => sum + record.virtualSize, 0);
  let before = 0;
  for (const { record, image } of images) {
    const progress = (done: number) => options.progress(before + done, total, record.path);
    if (!(await isImported(ports, vm, record, token))) {
      await importImage(ports, `${folder}/${image.fileName}`, record, image, token, { ...options, progress });
      const initial = checkRun(vm, manifest, folder);
      ports.relationships.update(vm.vmId, { initial: { ...initial, cursors: { ...initial.cursors, [record.diskId]: record.virtualSize } } });
    }
    progress(record.virtualSize);
    before += record.virtualSize;
  }
  options.signal.throwIfAborted();
  checkRun(vm, manifest, folder);
  await vm.completeImport(token, manifest.consistentFrom!);
}

async function findExport(ports: ReplicationPorts, vm: ReplicaVm, from: string): Promise<{ folder: string; manifest: ExportManifest }> {
  const places = [from.replace(/\/+$/, ''), exportFolderOf(vm.vm, from)];
  for (const folder of places) {
    const manifest = await readManifest(ports.files, ports.compute, folder);
    if (manifest !== null) return { folder, manifest };
  }
  throw new UnderstudyError('usage', 'EXPORT_NOT_FOUND', `there is no manifest.json in ${places.join(' nor in ')}`,
    'Name the folder that the primary exported to, or the one of the VM inside it.');
}

/** Asked again whenever something is about to change: the primary may have begun another run meanwhile. */
function checkRun(vm: ReplicaVm, manifest: ExportManifest, folder: string): InitialReplication {
  const { name, vmId } = vm.vm;
  if (manifest.vmId !== vmId) {
    throw new UnderstudyError('usage', 'EXPORT_OF_OTHER_VM', `${folder} is of VM '${manifest.name}' (${manifest.vmId}), not of '${name}' (${vmId})`,
      'Name the folder of this VM.');
  }
  const { initial, remote } = vm.relationship;
  const there = `host ${remote.name || remote.host}`;
  if (initial === null || initial.method !== 'export') {
    throw new UnderstudyError('state', 'EXPORT_NOT_EXPECTED', `VM '${name}' waits for no import: its primary has begun no export since the last one`,
      `Start it on ${there}: understudy start '${name}' --export DIR`);
  }
  if (manifest.token !== initial.token) {
    throw new UnderstudyError('state', 'EXPORT_OUTDATED',
      `${folder} is of run ${manifest.token} (${manifest.createdAt}), the primary has begun run ${initial.token} since`,
      `Import the newest export of ${there}.`);
  }
  if (manifest.consistentFrom === null) {
    throw new UnderstudyError('state', 'EXPORT_INCOMPLETE', `the export in ${folder} has not finished: ${manifest.disks.length} disks are whole`,
      `Wait until understudy status '${name}' on ${there} says so, then copy it again.`);
  }
  return initial;
}

async function checkImages(
  ports: ReplicationPorts, vm: ReplicaVm, manifest: ExportManifest, folder: string,
): Promise<{ record: DiskRecord; image: ExportedImage }[]> {
  const records = replicatedDisks(vm.vm);
  const found = records.map((record) => ({ record, image: manifest.disks.find(({ diskId }) => diskId === record.diskId) }));
  const missing = found.find(({ image }) => image === undefined);
  if (missing !== undefined || manifest.disks.length !== records.length) {
    throw new UnderstudyError('usage', 'EXPORT_DISKS_DIFFER',
      `the export has disks ${manifest.disks.map(({ diskId }) => diskId).join(', ')}, the replica ${records.map(({ diskId }) => diskId).join(', ')}`,
      'Remove replication, enable it again, and export again.');
  }
  const images = found.map(({ record, image }) => ({ record, image: image! }));
  for (const { record, image } of images) {
    if (image.virtualSize !== record.virtualSize) throw sizeDiffers(`image ${image.fileName}`, image.virtualSize, record);
    const path = `${folder}/${image.fileName}`;
    const stat = await onMedium(folder, ports.files.stat(path));
    if (stat?.kind === 'file' && stat.size === image.virtualSize) continue;
    throw damaged(path, stat === null ? 'it is missing' : `it has ${stat.size} bytes, exported were ${image.virtualSize}`);
  }
  return images;
}

async function checkSpace(ports: ReplicationPorts, vm: ReplicaVm, images: { record: DiskRecord; image: ExportedImage }[]): Promise<void> {
  const { cursors } = vm.relationship.initial!;
  const folder = folderOf(images[0]!.record.path);
  await ports.files.makeFolder(folder);
  const needed = images.reduce((sum, { record, image }) => sum + (cursors[record.diskId] === record.virtualSize ? 0 : image.bytes), 0);
  const free = await ports.files.freeBytes(folder);
  if (free >= needed) return;
  throw storageFull(`${folder} has ${free} bytes free, the import needs ${needed}`, null);
}

/** Copied whole, checked and durable by an import that was interrupted later. */
async function isImported(ports: ReplicationPorts, vm: ReplicaVm, record: DiskRecord, token: string): Promise<boolean> {
  if (vm.relationship.initial!.cursors[record.diskId] !== record.virtualSize) return false;
  return (await ports.files.stat(incomingPath(record, token))) !== null || (await ports.files.stat(record.path)) !== null;
}

async function importImage(
  ports: ReplicationPorts, path: string, record: DiskRecord, image: ExportedImage, token: string,
  options: { signal: AbortSignal; progress(done: number): void },
): Promise<void> {
  const { files } = ports;
  const target = { ...record, path: incomingPath(record, token) };
  await files.makeFolder(folderOf(record.path));
  await files.remove(target.path);
  const source = await ports.openDiskForReading({ ...record, path, format: 'raw' });
  try {
    await ports.createDisk(target);
    const disk = await ports.openDisk(target);
    try {
      const digest = await copy(ports, source, disk, options);
      if (digest !== image.digest) throw damaged(path, `its digest is ${digest}, exported was ${image.digest}`);
      await disk.flush();
    } finally {
      await disk.close();
    }
    await files.syncFolder(folderOf(target.path));
  } catch (error) {
    await files.remove(target.path);
    if (errnoOf(error) === 'ENOSPC') throw storageFull(`${folderOf(target.path)} is full: ${messageOf(error)}`, error);
    throw error;
  } finally {
    await source.close();
  }
}

async function copy(
  { compute }: ReplicationPorts, source: VirtualDisk, target: VirtualDisk, options: { signal: AbortSignal; progress(done: number): void },
): Promise<string> {
  const digest = new ImageDigest(compute);
  for await (const { offset, length, hole } of piecesOf(source)) {
    options.signal.throwIfAborted();
    if (hole) digest.addHole(length);
    else {
      const data = new Uint8Array(length);
      await source.read(data, offset);
      digest.add(data);
      if (!isZero(data)) await target.write(data, offset);
    }
    options.progress(offset + length);
  }
  return digest.hex();
}

const folderOf = (path: string): string => path.slice(0, path.lastIndexOf('/'));

const damaged = (path: string, why: string): UnderstudyError =>
  new UnderstudyError('usage', 'EXPORT_DAMAGED', `${path} cannot be used: ${why}`,
    'Copy the folder again from where it was exported, or export again.');

const storageFull = (message: string, cause: unknown): UnderstudyError =>
  new UnderstudyError('io', 'REPLICA_STORAGE_FULL', message, 'Free space there, then import again.', { cause });

const sizeDiffers = (what: string, size: number, record: DiskRecord): UnderstudyError =>
  new UnderstudyError('usage', 'DISK_SIZE_MISMATCH', `${what} is of a disk of ${size} bytes, replica disk ${record.path} has ${record.virtualSize}`,
    'Remove replication, enable it again, and export again.');
