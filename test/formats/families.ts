import type { Files } from '../../src/model/ports.ts';
import type { SparseDisk } from '../../src/disk/vhd/sparse-disk.ts';
import type { CheckResult } from '../../src/disk/vhd/check.ts';
import type { ChainLink } from '../../src/disk/vhd/chain.ts';
import * as vhd from '../../src/disk/vhd/index.ts';
import * as vhdx from '../../src/disk/vhdx/index.ts';
import { clock } from './seeded.ts';
import type { Seeded } from './seeded.ts';

/** VHD and VHDX behind one face, so that each test is written once. */
export interface Family {
  name: string;
  sectorSize: 512 | 4096;
  path(level: number): string;
  create(files: Files, path: string, variant: 'fixed' | 'dynamic', size: number): Promise<void>;
  createChild(files: Files, path: string, parent: string): Promise<void>;
  open(files: Files, path: string, options: { readOnly: boolean; allowParentOutside?: boolean }): Promise<SparseDisk>;
  resize(files: Files, path: string, size: number): Promise<void>;
  compact(files: Files, path: string): Promise<{ before: number; after: number }>;
  merge(files: Files, path: string, options?: { keepChild?: boolean }): Promise<string>;
  check(files: Files, path: string, options?: { repair?: boolean }): Promise<CheckResult>;
  chain(files: Files, path: string): Promise<ChainLink[]>;
}

const MIB = 1 << 20;

function vhdFamily(random: Seeded): Family {
  return {
    name: 'VHD',
    sectorSize: 512,
    path: (level) => (level === 0 ? '/d/0.vhd' : `/d/${level}.avhd`),
    create: (files, path, variant, size) => vhd.create(path, files, { variant, size, blockSize: 256 * 1024, random, clock }),
    createChild: (files, path, parent) =>
      vhd.create(path, files, { variant: 'differencing', parent, blockSize: 128 * 1024, random, clock }),
    open: (files, path, options) => vhd.open(path, files, options),
    resize: (files, path, size) => vhd.resize(path, files, { size }),
    compact: (files, path) => vhd.compact(path, files),
    merge: (files, path, options = {}) => vhd.merge(path, files, { clock, ...options }),
    check: (files, path, options = {}) => vhd.check(path, files, options),
    chain: (files, path) => vhd.chain(path, files),
  };
}

function vhdxFamily(random: Seeded, sectorSize: 512 | 4096): Family {
  return {
    name: `VHDX with sectors of ${sectorSize} bytes`,
    sectorSize,
    path: (level) => (level === 0 ? '/d/0.vhdx' : `/d/${level}.avhdx`),
    create: (files, path, variant, size) =>
      vhdx.create(path, files, { variant, size, blockSize: MIB, logicalSectorSize: sectorSize, random }),
    createChild: (files, path, parent) =>
      vhdx.create(path, files, { variant: 'differencing', parent, blockSize: MIB, random }),
    open: (files, path, options) => vhdx.open(path, files, { ...options, random }),
    resize: (files, path, size) => vhdx.resize(path, files, { size, random }),
    compact: (files, path) => vhdx.compact(path, files, { random }),
    merge: (files, path, options = {}) => vhdx.merge(path, files, { random, ...options }),
    check: (files, path, options = {}) => vhdx.check(path, files, { random, ...options }),
    chain: (files, path) => vhdx.chain(path, files),
  };
}

export const families = (random: Seeded): Family[] => [vhdFamily(random), vhdxFamily(random, 512), vhdxFamily(random, 4096)];
