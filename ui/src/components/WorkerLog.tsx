/** A worker's own log: its newest lines, followed live; search; download. */

import { Box, Button, HStack, Input, NativeSelect, Text } from "@chakra-ui/react";
import { useEffect, useRef, useState } from "react";
import { path, read, restUrl } from "../api";
import type { LogLine, LogLines } from "../types";
import { useLive } from "../useLive";
import { words } from "../words";
import { EmptyNotice, ErrorNotice } from "./Notices";
import { ERROR_TEXT } from "../colors";

/** The page drops older lines; the download has them. */
const MAX_LINES = 2000;
const LEVELS = ["debug", "info", "warning", "error"] as const;
const EVERY_MS = 2_000;

export function WorkerLog({ name }: { name: string }) {
  const [contains, setContains] = useState("");
  const [level, setLevel] = useState<string>("debug");
  const { log, fields } = words();
  return (
    <Box>
      <HStack mb="2" wrap="wrap">
        <Input
          aria-label={fields.search}
          maxW="16rem"
          onChange={(event) => setContains(event.target.value)}
          placeholder={fields.search}
          size="xs"
          value={contains}
        />
        <NativeSelect.Root size="xs" w="8rem">
          <NativeSelect.Field aria-label={log.level} onChange={(event) => setLevel(event.target.value)} value={level}>
            {LEVELS.map((one) => (
              <option key={one} value={one}>
                {one}
              </option>
            ))}
          </NativeSelect.Field>
          <NativeSelect.Indicator />
        </NativeSelect.Root>
        <Button asChild size="xs" variant="outline">
          <a download href={restUrl(`${path("workers", name)}/log/download`)}>
            {log.download}
          </a>
        </Button>
      </HStack>
      <Lines contains={contains} key={`${level} ${contains}`} level={level} name={name} />
    </Box>
  );
}

function Lines({ name, contains, level }: { name: string; contains: string; level: string }) {
  const lines = useRef<LogLine[]>([]);
  const next = useRef<number | undefined>(undefined);
  const live = useLive(
    `log of ${name} ${level} ${contains}`,
    async (signal) => {
      const found = await read<LogLines>(`${path("workers", name)}/log`, { contains, level, after: next.current, most: 500 }, signal);
      next.current = found.next;
      if (found.items.length) lines.current = [...lines.current, ...found.items].slice(-MAX_LINES);
      return lines.current; // the same array while there are no new lines, so nothing is rendered
    },
    { everyMs: EVERY_MS },
  );
  const box = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const shown = live.value;
  useEffect(() => {
    if (follows.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown]);
  return (
    <>
      <ErrorNotice problem={live.problem} />
      {shown?.length ? (
        <Box
          aria-label={words().log.title}
          borderRadius="md"
          borderWidth="1px"
          fontFamily="mono"
          fontSize="xs"
          maxH="24rem"
          onScroll={({ currentTarget: at }) => {
            follows.current = at.scrollHeight - at.scrollTop - at.clientHeight < 40;
          }}
          overflowY="auto"
          p="2"
          ref={box}
          role="log"
          tabIndex={0}
        >
          {shown.map((line, nth) => (
            <Text color={line.level === "error" || line.level === "critical" ? ERROR_TEXT : "fg"} key={nth} whiteSpace="pre-wrap">
              {`${line.at} ${line.level.toUpperCase()} ${line.logger ? `${line.logger}: ` : ""}${line.text.join("\n    ")}`.trim()}
            </Text>
          ))}
        </Box>
      ) : live.problem || shown === undefined ? null : (
        <EmptyNotice>{words().log.empty}</EmptyNotice>
      )}
    </>
  );
}
