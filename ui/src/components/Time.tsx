/** Times and durations. */

import { Text } from "@chakra-ui/react";
import { duration, moment, relative } from "../format";
import { useNow } from "../useNow";
import { words } from "../words";

export function RelativeTime({ time }: { time: string | null }) {
  const now = useNow();
  if (time === null) return <Text as="span">{words().notes.never}</Text>;
  return (
    <time dateTime={time} title={moment(time)}>
      {relative(time, now)}
    </time>
  );
}

export function Duration({ seconds }: { seconds: number | null }) {
  return <Text as="span">{seconds === null ? "–" : duration(seconds)}</Text>;
}
