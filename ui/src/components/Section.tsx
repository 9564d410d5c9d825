/** A part of a page, with its heading. */

import { Box, Heading } from "@chakra-ui/react";
import type { ReactNode } from "react";

export function Section({ title, children }: { title: string; children: ReactNode }) {
  return (
    <Box>
      <Heading mb="2" size="sm">
        {title}
      </Heading>
      {children}
    </Box>
  );
}
