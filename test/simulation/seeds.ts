/** Which seeds a simulation runs over disks of which format, and how one run is asked for again. */
import type { World } from './world.ts';

export interface SeedRun {
  seed: number;
  format: World['format'];
}

const FORMATS = ['raw', 'vhd', 'vhdx'] as const;

export interface SeedCounts {
  /** Seeds over raw disks in `npm test`, and in `npm run test:long`. */
  short: number;
  long: number;
  /** One seed for so many goes over VHD disks too, and one over VHDX disks; one at least. */
  imageShare: number;
  /** What `npm test` leaves to the long run: a simulation sees one of the two there, and others see the other. */
  onlyLong?: 'vhd' | 'vhdx';
}

/**
 * Over images a seed takes several times as long as over raw disks, and everything above the disk is the same, so a few do.
 *
 * SIM_SEED=n SIM_COUNT=1 replays a seed in all formats, SIM_FORMAT=vhdx SIM_SEED=1 SIM_COUNT=60 that many seeds of one.
 */
export function seedRuns({ short, long, imageShare, onlyLong }: SeedCounts): SeedRun[] {
  const { SIM_COUNT, SIM_SEED, SIM_FORMAT, UNDERSTUDY_TEST_LONG } = process.env;
  const inShortRun = SIM_COUNT === undefined && UNDERSTUDY_TEST_LONG !== '1';
  const count = Number(SIM_COUNT ?? (inShortRun ? short : long));
  const first = Number(SIM_SEED ?? 1);
  const formats = FORMATS.filter((format) => (SIM_FORMAT === undefined ? !inShortRun || format !== onlyLong : SIM_FORMAT === format));
  return formats.flatMap((format) => {
    const seeds = format === 'raw' || SIM_FORMAT !== undefined ? count : Math.ceil(count / imageShare);
    return Array.from({ length: seeds }, (_, index) => ({ seed: first + index, format }));
  });
}
