/**
 * What an exported initial copy is made of, for both ends: folder, manifest, and the digest of an image. Byte by byte in
 * docs/formats/export-folder.md.
 */
import { z } from 'zod';
import { errnoOf, messageOf, UnderstudyError } from '../model/errors.ts';
import { DISKS_PER_VM_MAX } from '../model/limits.ts';
import type { Compute, Files } from '../model/ports.ts';
import type { VmRecord } from '../model/records.ts';
import type { VirtualDisk } from '../disk/virtual-disk.ts';

/** What is read, hashed and written at once. Part of the format: the digest of an image is made of those of its pieces. */
export const PIECE_BYTES = 1 << 20;
const MANIFEST = 'manifest.json';
const MANIFEST_BYTES_MAX = 1 << 20;

const count = z.int().min(0);
const uuid = z.string().regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'a UUID');
const image = z.strictObject({
  diskId: z.string().regex(/^[a-z0-9-]{1,40}$/),
  /** A plain name: it must not lead out of the folder. */
  fileName: z.string().min(1).max(200).regex(/^[^/\0]+$/).refine((name) => name !== '.' && name !== '..'),
  virtualSize: count,
  /** Bytes that are not holes. */
  bytes: count,
  digest: z.string().regex(/^[0-9a-f]{64}$/, 'a BLAKE3 digest'),
});
const manifestSchema = z.strictObject({
  version: z.literal(1),
  vmId: uuid,
  name: z.string().min(1).max(200),
  /** Of the run of initial replication: the logs that reach the replica by the link name the same one. */
  token: uuid,
  /** Writes from this epoch on are in logs. */
  firstEpoch: count,
  /** The copy is one instant of the VM once all epochs up to this one are applied. Null: the export has not finished. */
  consistentFrom: count.nullable(),
  createdAt: z.iso.datetime(),
  /** Those that are whole. */
  disks: z.array(image).max(DISKS_PER_VM_MAX),
});
export type ExportManifest = z.infer<typeof manifestSchema>;
export type ExportedImage = z.infer<typeof image>;

/** Where the copy of a VM goes inside the folder that the user named. */
export const exportFolderOf = (vm: Pick<VmRecord, 'name' | 'vmId'>, folder: string): string =>
  `${folder.replace(/\/+$/, '')}/${vm.name}_${vm.vmId}`;

/**
 * The manifest of the folder, or null when it has none.
 * @throws EXPORT_DAMAGED when it is not one of this version, or does not match its own digest
 */
export async function readManifest(files: Files, compute: Compute, folder: string): Promise<ExportManifest | null> {
  const path = `${folder}/${MANIFEST}`;
  const stat = await onMedium(folder, files.stat(path));
  if (stat === null) return null;
  const damaged = (why: string) => new UnderstudyError('usage', 'EXPORT_DAMAGED', `${path} cannot be used: ${why}`,
    'Copy the folder again from where it was exported, or export again.');
  if (stat.kind !== 'file' || stat.size > MANIFEST_BYTES_MAX) throw damaged(`it is no file of at most ${MANIFEST_BYTES_MAX} bytes`);
  const bytes = new Uint8Array(stat.size);
  const file = await onMedium(folder, files.open(path, 'read'));
  try {
    await onMedium(folder, file.read(bytes, 0));
  } finally {
    await file.close();
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    throw damaged(messageOf(error));
  }
  if (typeof parsed !== 'object' || parsed === null) throw damaged('it is no JSON object');
  const { digest, ...body } = parsed as Record<string, unknown>;
  const manifest = manifestSchema.safeParse(body);
  if (!manifest.success) throw damaged(z.prettifyError(manifest.error).replaceAll(/\s+/g, ' ').slice(0, 300));
  const found = digestOf(compute, body);
  if (digest !== found) throw damaged(`its digest is ${found}, it says ${String(digest).slice(0, 64)}`);
  return manifest.data;
}

/** Replaces the manifest; durable when it resolves. */
export async function writeManifest(files: Files, compute: Compute, folder: string, manifest: ExportManifest): Promise<void> {
  const text = `${JSON.stringify({ ...manifest, digest: digestOf(compute, manifest) }, null, 2)}\n`;
  const path = `${folder}/${MANIFEST}`;
  const work = async () => {
    await files.remove(`${path}.new`);
    const file = await files.open(`${path}.new`, 'create');
    try {
      await file.write([Buffer.from(text)], 0);
      await file.datasync();
    } finally {
      await file.close();
    }
    await files.rename(`${path}.new`, path);
    await files.syncFolder(folder);
  };
  await onMedium(folder, work());
}

/** Spaces do not count: a person may have reformatted it. */
const digestOf = (compute: Compute, body: object): string => hex(compute.digest(Buffer.from(JSON.stringify(body))));

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export interface Piece {
  offset: number;
  length: number;
  /** Reads as zeroes without being stored. */
  hole: boolean;
}

/** The disk in pieces of PIECE_BYTES, from its start to its end. */
export async function* piecesOf(disk: Pick<VirtualDisk, 'extents' | 'virtualSize'>): AsyncGenerator<Piece> {
  let offset = 0;
  let hole = true;
  for await (const extent of disk.extents(0, disk.virtualSize)) {
    const end = extent.offset + extent.length;
    while (offset < end) {
      const pieceEnd = Math.min(offset + PIECE_BYTES, disk.virtualSize);
      if (extent.kind === 'data') hole = false;
      if (end < pieceEnd) break;
      yield { offset, length: pieceEnd - offset, hole };
      hole = true;
      offset = pieceEnd;
    }
  }
}

/**
 * BLAKE3 over the BLAKE3 digests of all pieces, in order. Holes cost nothing, and the digest does not depend on where there are
 * any: a medium whose file system has none gives the same one.
 */
export class ImageDigest {
  #compute: Compute;
  #all: ReturnType<Compute['digester']>;
  #zeroes = new Map<number, Uint8Array>();

  constructor(compute: Compute) {
    this.#compute = compute;
    this.#all = compute.digester();
  }

  add(data: Uint8Array): void {
    this.#all.update(this.#compute.digest(data));
  }

  addHole(length: number): void {
    let digest = this.#zeroes.get(length);
    if (digest === undefined) this.#zeroes.set(length, (digest = this.#compute.digest(new Uint8Array(length))));
    this.#all.update(digest);
  }

  hex(): string {
    return hex(this.#all.digest());
  }
}

/**
 * System errors of the export's folder, in words that can be acted on. The errno stays in the cause: it decides about
 * retries.
 */
export async function onMedium<T>(folder: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    const errno = errnoOf(cause);
    if (errno === undefined || cause instanceof UnderstudyError) throw cause;
    if (errno === 'ENOSPC' || errno === 'EDQUOT') {
      throw new UnderstudyError('io', 'EXPORT_FOLDER_FULL', `there is no space left in ${folder}`,
        'Free space there, it is tried again by itself; or stop it (understudy stop-initial NAME) and export to a larger medium.', { cause });
    }
    throw new UnderstudyError('io', 'EXPORT_FOLDER_UNUSABLE', `${folder} cannot be used (${errno}): ${messageOf(cause)}`,
      'Check the medium, its mount and the permissions, or name another folder.', { cause });
  }
}
