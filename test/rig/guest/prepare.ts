/**
 * What a small real Linux guest is made of: the distribution's own kernel (downloaded by apt, not installed) and an initramfs of
 * busybox, e2fsck and the scripts in inside/. Both are kept in .state/guest, so that only the first run of a clone waits.
 * Needs no root and no KVM.
 */
import { createHash } from 'node:crypto';
import { existsSync, globSync } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { zstdDecompressSync } from 'node:zlib';
import { mustRun, run } from '../program.ts';

const INSIDE = fileURLToPath(new URL('inside/', import.meta.url));
const STATE = fileURLToPath(new URL('../../../.state/guest/', import.meta.url));
/** Debian's and Ubuntu's names of their newest kernel for virtual machines. */
const KERNEL_PACKAGES = ['linux-image-cloud-amd64', 'linux-image-virtual'];
/** Whichever of these a kernel has as modules and not built in; each after those that it needs. */
const MODULES = ['virtio', 'virtio_ring', 'virtio_pci_legacy_dev', 'virtio_pci_modern_dev', 'virtio_pci', 'virtio_blk', 'crc16',
  'crc32c_generic', 'crc32c-intel', 'libcrc32c', 'mbcache', 'jbd2', 'ext4', 'virtio_console',
  'failover', 'net_failover', 'virtio_net'];
const inOrder = (name: string): string => `${String(MODULES.indexOf(name.slice(0, -3))).padStart(2, '0')}-${name}`;
/** A kernel that was kept with other modules is fetched anew. */
const KERNEL = `kernel-${createHash('sha256').update(MODULES.join(' ')).digest('hex').slice(0, 6)}-`;
const BUSYBOX = ['/bin/busybox', '/usr/bin/busybox'];
const QEMU_GA = ['/usr/sbin/qemu-ga', '/usr/bin/qemu-ga'];
const E2FSCK = ['/sbin/e2fsck.static', '/usr/sbin/e2fsck.static'];

export interface Guest {
  kernel: string;
  initramfs: string;
}

const onPath = (program: string): boolean =>
  [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'].some((folder) => existsSync(join(folder, program)));

/** Why this machine cannot run guests, in one line; null when it can. */
export function guestMissing(): string | null {
  if (process.arch !== 'x64') return `the guest is an x86-64 machine, its kernel comes by apt for ${process.arch} here`;
  const programs = ['qemu-system-x86_64', 'apt-get', 'dpkg', 'cpio', 'mkfs.ext4', 'debugfs', 'tar'].filter((program) => !onPath(program));
  if (!BUSYBOX.some(existsSync)) programs.push('busybox-static');
  if (!E2FSCK.some(existsSync)) programs.push('e2fsck-static');
  return programs.length === 0 ? null : `not installed: ${programs.join(', ')}`;
}

/**
 * For node:test's `skip`: the reason, or false where guests can run. In CI (CI=true) nothing is skipped: what is missing
 * there is an
 * error of the machine's set-up.
 */
export function guestSkip(): string | false {
  const reason = guestMissing();
  if (reason !== null && process.env.CI === 'true') throw new Error(`real guests must run in CI, but: ${reason}`);
  return reason ?? false;
}

/** For `skip` of tests whose guest runs QEMU's guest agent, which is copied from this machine. */
export function agentSkip(): string | false {
  return guestSkip() || (QEMU_GA.some(existsSync) ? false : 'not installed: qemu-guest-agent');
}

/** The guest's files, made when they are not there. Several processes may do so at once: each file appears whole. */
export async function prepareGuest({ agent = false } = {}): Promise<Guest> {
  const reason = guestMissing();
  if (reason !== null) throw new Error(`no guest can run here: ${reason}`);
  await mkdir(STATE, { recursive: true });
  const kernel = keptKernel() ?? (await fetchKernel());
  return { kernel: join(kernel, 'vmlinuz'), initramfs: await makeInitramfs(kernel, agent ? await agentFiles() : []) };
}

const keptKernel = (): string | null => globSync(join(STATE, `${KERNEL}*`)).sort().at(-1) ?? null;

/**
 * Downloads the kernel package and those it needs, and keeps the kernel and the few modules; the folder's name is its
 * version.
 */
async function fetchKernel(): Promise<string> {
  const work = await mkdtemp(join(STATE, 'fetch-'));
  try {
    const packages = await kernelPackages();
    await mustRun('apt-get', ['download', '-qq', ...packages], { cwd: work });
    for (const name of await readdir(work)) await mustRun('dpkg', ['-x', join(work, name), join(work, 'tree')]);
    const image = globSync(join(work, 'tree/boot/vmlinuz-*'))[0];
    if (image === undefined) throw new Error(`${packages.join(' ')} hold no boot/vmlinuz`);
    const made = join(work, 'made');
    await mkdir(join(made, 'modules'), { recursive: true });
    await copyFile(image, join(made, 'vmlinuz'));
    for (const module of globSync(join(work, 'tree/{lib,usr/lib}/modules/**/*.ko*'))) await keepModule(module, join(made, 'modules'));
    const kept = join(STATE, `${KERNEL}${basename(image).slice('vmlinuz-'.length)}`);
    // Another process may have been faster; its folder is as good.
    await rename(made, kept).catch((error: NodeJS.ErrnoException) => {
      if (!['ENOTEMPTY', 'EEXIST'].includes(error.code ?? '')) throw error;
    });
    return kept;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** The image's package and, where the distribution splits them (Ubuntu), the one of its modules. */
async function kernelPackages(): Promise<string[]> {
  for (const meta of KERNEL_PACKAGES) {
    const image = await dependency(meta, 'linux-image-');
    if (image === null) continue;
    const modules = await dependency(image, 'linux-modules-');
    return modules === null ? [image] : [image, modules];
  }
  throw new Error(`apt knows none of ${KERNEL_PACKAGES.join(', ')}: run apt-get update`);
}

async function dependency(of: string, prefix: string): Promise<string | null> {
  const { stdout } = await run('apt-cache', ['depends', of]);
  return new RegExp(`Depends: (${prefix}\\S+)`).exec(stdout)?.[1] ?? null;
}

async function keepModule(path: string, into: string): Promise<void> {
  const [name, packed] = basename(path).split('.ko') as [string, string];
  if (!MODULES.includes(name)) return;
  const to = join(into, `${name}.ko`);
  if (packed === '') await copyFile(path, to);
  else if (packed === '.zst') await writeFile(to, zstdDecompressSync(await readFile(path)));
  else await mustRun('sh', ['-c', 'xz -dc "$1" > "$2"', 'sh', path, to]);
}

/** The agent and the libraries that it names, each at its own place. */
async function agentFiles(): Promise<{ from: string; to: string }[]> {
  const program = QEMU_GA.find(existsSync)!;
  const libraries = [...(await mustRun('ldd', [program])).matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path!);
  return [{ from: program, to: 'bin/qemu-ga' }, ...libraries.map((from) => ({ from, to: from.slice(1) }))];
}

/** Its name holds the digest of all that goes in, so that a changed script is never run in an old form. */
async function makeInitramfs(kernel: string, more: { from: string; to: string }[]): Promise<string> {
  const files: { from: string; to: string }[] = [
    { from: BUSYBOX.find(existsSync)!, to: 'bin/busybox' },
    { from: E2FSCK.find(existsSync)!, to: 'bin/e2fsck' },
    { from: join(INSIDE, 'init'), to: 'init' },
    ...globSync(join(INSIDE, '*.sh')).map((from) => ({ from, to: join('jobs', basename(from)) })),
    ...globSync(join(kernel, 'modules/*.ko')).map((from) => ({ from, to: join('modules', inOrder(basename(from))) })),
    ...more,
  ];
  const digest = createHash('sha256').update(basename(kernel));
  for (const { from, to } of files) digest.update(`${to}\0`).update(await readFile(from));
  const kept = join(STATE, `initramfs-${digest.digest('hex').slice(0, 16)}.cpio`);
  if (existsSync(kept)) return kept;
  const work = await mkdtemp(join(STATE, 'initramfs-'));
  try {
    const root = join(work, 'root');
    for (const folder of ['bin', 'sbin', 'jobs', 'modules', 'proc', 'sys', 'dev', 'mnt', 'tmp', 'run', 'etc', ...more.map(({ to }) => dirname(to))]) {
      await mkdir(join(root, folder), { recursive: true });
    }
    for (const { from, to } of files) await copyFile(from, join(root, to));
    for (const program of ['init', 'bin/busybox', 'bin/e2fsck', ...more.map(({ to }) => to)]) await chmod(join(root, program), 0o755);
    await mustRun('sh', ['-c', 'cd "$1" && find . | cpio -o -H newc --quiet -R 0:0 > ../archive', 'sh', root]);
    // Not packed: the emulated processor would need longer to unpack it than it takes to read.
    await rename(join(work, 'archive'), kept);
    return kept;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
