/** What every disk that is seen through another one takes from it: its sectors, its geometry, and unless told otherwise its name and size. */
import type { Geometry, VirtualDisk } from './virtual-disk.ts';

type Taken = Pick<VirtualDisk, 'location' | 'virtualSize' | 'logicalSectorSize' | 'physicalSectorSize' | 'geometry'>;

export abstract class DiskOverBase {
  readonly format = 'raw' as const;
  readonly variant = 'differencing' as const;
  readonly location: string;
  readonly virtualSize: number;
  readonly logicalSectorSize: number;
  readonly physicalSectorSize: number;
  readonly geometry: Geometry | null;

  constructor(base: Taken, { location = base.location, size = base.virtualSize }: { location?: string; size?: number } = {}) {
    this.location = location;
    this.virtualSize = size;
    this.logicalSectorSize = base.logicalSectorSize;
    this.physicalSectorSize = base.physicalSectorSize;
    this.geometry = base.geometry;
  }
}
