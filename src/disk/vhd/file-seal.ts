import type { Files } from '../../model/ports.ts';
import type { Seal } from '../virtual-disk.ts';

/** The marks that a file system keeps of a file. */
export async function fileSeal(path: string, files: Files): Promise<Extract<Seal, { kind: 'file' }>> {
  const stat = await files.stat(path);
  if (stat === null) throw Object.assign(new Error(`${path} is gone`), { code: 'ENOENT' });
  return {
    kind: 'file', size: stat.size, mtimeNs: `${stat.mtimeNs}`, ctimeNs: `${stat.ctimeNs}`,
    inode: `${stat.inode}`, device: `${stat.device}`,
  };
}
