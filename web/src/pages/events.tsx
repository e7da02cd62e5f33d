/** What happened on this host. */
import { useLive } from '../data/live.ts';
import { EventList } from '../parts/event-list.tsx';

export function Events() {
  const { events } = useLive();
  return (
    <>
      <h1>Events</h1>
      <EventList events={events} />
    </>
  );
}
