/** Events, newest first: those that came live, and older ones on request. */
import { useMemo, useState } from 'react';
import type { HostEvent } from '../../../src/server/api/contract.ts';
import { call } from '../data/call.ts';
import { localTimes, when } from '../data/format.ts';
import { hrefOf } from '../data/route.ts';
import { useAction } from '../data/use-action.ts';
import { FilterBox, SearchBox } from './fields.tsx';
import { Refused } from './refused.tsx';

const LEVELS = ['Error', 'Warning', 'Information'] as const;
const SIGNS = { Error: '✕', Warning: '!', Information: 'i' } as const;
const OLDER_MAX = 2000;

export function EventList({ events, vmName }: { events: readonly HostEvent[]; vmName?: string }) {
  const [filter, setFilter] = useState({ level: '', vm: '', text: '' });
  const [older, setOlder] = useState<HostEvent[] | null>(null);
  const action = useAction();
  const all = useMemo(() => merged(events, older), [events, older]);
  const rows = all.filter(
    (event) =>
      (filter.level === '' || event.level === filter.level) &&
      (filter.vm === '' || event.vmName === filter.vm) &&
      `${event.id} ${event.vmName ?? ''} ${event.message}`.toLowerCase().includes(filter.text.toLowerCase()),
  );
  const vms = useMemo(() => [...new Set(all.flatMap((event) => event.vmName ?? []))].sort(), [all]);
  const load = () =>
    void action.run(async () => setOlder(await call('events', { limit: OLDER_MAX, ...(vmName === undefined ? {} : { name: vmName }) })));
  return (
    <section aria-label="Events">
      <div className="filters wide">
        <SearchBox label="Find in events" value={filter.text} onChange={(text) => setFilter({ ...filter, text })} />
        <FilterBox label="Level" every="Every level" options={LEVELS} value={filter.level} onChange={(level) => setFilter({ ...filter, level })} />
        {vmName !== undefined ? null : (
          <FilterBox label="VM" every="Every VM" options={vms} value={filter.vm} onChange={(vm) => setFilter({ ...filter, vm })} />
        )}
        {older === null ? (
          <button type="button" disabled={action.running} onClick={load}>
            Older ones too
          </button>
        ) : null}
      </div>
      <Refused refusal={action.refusal} />
      <ul className="events">
        {rows.map((event, at) => (
          <li key={`${event.time} ${event.id} ${at}`} className={event.level.toLowerCase()}>
            <span className="sign" role="img" aria-label={event.level}>
              {SIGNS[event.level]}
            </span>
            <div>
              <p>{localTimes(event.message)}</p>
              <small>
                {when(event.time)} · {event.id}
                {vmName !== undefined || event.vmName === null ? null : (
                  <>
                    {' '}
                    · <a href={hrefOf({ page: 'vm', vm: event.vmName, tab: 'events' })}>{event.vmName}</a>
                  </>
                )}
              </small>
            </div>
          </li>
        ))}
      </ul>
      {rows.length === 0 ? <p className="hint">No event{all.length === 0 ? ' yet' : ' matches'}.</p> : null}
    </section>
  );
}

/** What was loaded and what came since overlap; an event is itself by its sequence number, or by time, id and words. */
function merged(live: readonly HostEvent[], older: HostEvent[] | null): HostEvent[] {
  if (older === null) return [...live];
  const keyOf = (event: HostEvent) => `${event.time} ${event.id} ${event.message}`;
  const known = new Set(live.map(keyOf));
  return [...live, ...older.toReversed().filter((event) => !known.has(keyOf(event)))];
}
