"""A batch leaves the service: JSON lines, CSV, COCO, one zip, or one HTML report. No score is computed.

Every writer takes the batch's pictures in order of arrival and what they have in common (``About``), and hands out
bytes piece by piece, so that memory does not grow with the batch. Pictures not scored yet are listed as pending.
"""
